"""Strange structures give the right numbers or an `InputError`, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from reference import neighbours
from scipy.spatial import cKDTree
from structures import KINDS, structures
from systems import small_soap

from soapkrr import InputError
from soapkrr.structures import Batch

#: (i, j) pairs times images up to which the slow twin is asked.
AFFORDABLE = 100_000


def expected(atoms, cutoff):
    """(i, j, r_ij) by looping over images of the ordinary structures that have the same pairs; None where there are too many."""
    lists, first = [], 0
    for part in atoms.info.get("parts", [atoms]):
        part.cell[~part.pbc] = 0
        if len(part) ** 2 * images(part, cutoff) > AFFORDABLE:
            return None
        i, j, vectors = neighbours(part, cutoff)
        lists.append((i + first, j + first, vectors))
        first += len(part)
    return [np.concatenate(arrays) for arrays in zip(*lists, strict=True)]


def images(atoms, cutoff):
    if not atoms.pbc.any():
        return 1
    inverse = np.linalg.pinv(atoms.cell.array)
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(atoms.positions @ inverse, axis=0))
    return (1 + 2 * reach * atoms.pbc).prod()


def rounding(atoms):
    """Error of a pair vector, Å: a few roundings of the largest position or periodic vector."""
    return 1e-10 + 16 * np.finfo(float).eps * max(np.abs(atoms.positions).max(), np.abs(atoms.cell.array[atoms.pbc]).max(initial=0))


def lines(i, j, vectors, cutoff, error):
    """Rows (i, j, x, y, z) of the pairs that are surely nearer than the cutoff."""
    return np.column_stack([i, j, vectors])[np.linalg.norm(vectors, axis=1) < cutoff - 2 * error]


def alike(found, wanted, error):
    """Whether each list has as many rows as the other and a row within ``error`` of each of the other's, in any order."""
    if not len(found) or len(found) != len(wanted):
        return len(found) == len(wanted)
    return all(cKDTree(a).query(b, p=np.inf)[0].max() < error for a, b in ((found, wanted), (wanted, found)))


def check_pairs(name, atoms, cutoff):
    """'right', 'refused', or 'unchecked' where the twin would take too long."""
    try:
        pairs = Batch.from_atoms([atoms]).pairs(cutoff)
    except InputError as error:
        assert "frame 0" in str(error), name
        return "refused"
    assert np.all(np.linalg.norm(pairs.vectors, axis=1) < cutoff), name
    wanted, error = expected(atoms, cutoff), rounding(atoms)
    if wanted is None:
        return "unchecked"
    assert alike(lines(pairs.i, pairs.j, pairs.vectors, cutoff, error), lines(*wanted, cutoff, error), error), name
    return "right"


@pytest.fixture(scope="module")
def outcomes():
    """Outcome of each structure, by kind."""
    found = {kind: [] for kind in KINDS}
    for k, (name, atoms) in enumerate(structures(26 * len(KINDS), seed=1)):
        found[name.rsplit(" ", 1)[0]].append(check_pairs(name, atoms, (2.3, 4.0, 5.3)[k // len(KINDS) % 3]))
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("crowd", "badly written", "tiny", "flat")])
def test_most_are_right(outcomes, kind):
    assert outcomes[kind].count("right") >= 20, outcomes[kind]


@pytest.mark.parametrize("kind", ["crowd", "badly written", "flat", "tiny"])
def test_impossible_ones_are_refused(outcomes, kind):
    assert outcomes[kind].count("refused") >= 2, outcomes[kind]


def test_descriptors_are_those_of_the_ordinary_structures():
    """Positions are known to 1e-7 Å or better, 1e9 Å away; features of unit length change by some 1 per Å."""
    soap, compared = small_soap(["Si", "Cu"]), 0
    for name, atoms in structures(20 * len(KINDS), seed=2):
        if "parts" in atoms.info:
            wanted = soap.create(atoms.info["parts"])
            np.testing.assert_allclose(soap.create(atoms), wanted, rtol=0, atol=1e-10 + 10 * rounding(atoms), err_msg=name)
            compared += 1
    assert compared == 80


def test_predictions_are_finite(fitted):
    """Energies, forces and error bars of whatever has pairs."""
    for name, atoms in structures(3 * len(KINDS), seed=3):
        atoms.numbers[atoms.numbers == 29] = 14
        if len(atoms) < 10:
            try:
                prediction = fitted("primitive").predict(atoms, uncertainty=True)
            except InputError as error:
                assert "frame 0" in str(error), name
            else:
                assert np.isfinite([*prediction.energy, *prediction.energy_std]).all() and np.isfinite(prediction.forces[0]).all(), name
