"""Strange structures give the right numbers or an `InputError`, and nothing else."""

from __future__ import annotations

import numpy as np
import potentials
import pytest
from harness import REFUSED, RIGHT, Limits, failures, run
from reference import neighbours
from scipy.spatial import cKDTree
from structures import KINDS, structures
from systems import small_soap
from twins import affordable, parts_of, rounding

from soapkrr import InputError
from soapkrr.structures import Batch


def expected(atoms, cutoff):
    """(i, j, r_ij) by looping over images of the ordinary structures that have the same pairs; None where there are too many."""
    if not affordable(atoms, cutoff):
        return None
    lists, first = [], 0
    for part in parts_of(atoms):
        i, j, vectors = neighbours(part, cutoff)
        lists.append((i + first, j + first, vectors))
        first += len(part)
    return [np.concatenate(arrays) for arrays in zip(*lists, strict=True)]


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


def test_five_kinds_of_model_predict_what_their_slow_twins_do():
    """Energies, forces, stresses and standard deviations from pairs found by trying every image, or an `InputError`; soon."""
    table = run("structures", potentials.attempts(4 * len(KINDS), seed=3), Limits(seconds=30))
    assert not failures(table)
    assert table.total()[RIGHT] > 2 * table.total()[REFUSED]
