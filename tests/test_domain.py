"""Where a model is at home: pairs closer than any in the data are flagged, structures like the data are not."""

import numpy as np
import pytest
from ase import Atoms
from small import crystals, small_gp
from systems import build, variations

import soapkrr
from soapkrr import GaussianProcess
from soapkrr.regression.domain import MARGIN, Domain
from soapkrr.structures import Batch


def domain_of(frames, r_cut):
    """Of batches of two structures each."""
    return Domain.of((Batch.from_atoms(frames[k : k + 2], k) for k in range(0, len(frames), 2)), r_cut)


def test_shortest_distances_are_those_of_all_pairs():
    frames = variations("alloy", 4)
    domain = domain_of(frames, 4.0)
    for name, shortest in domain.shortest.items():
        a, b = name.split("-")
        found = [
            d
            for atoms in frames
            for s, i in enumerate(atoms)
            if i.symbol == a
            for d in np.linalg.norm(Batch.from_atoms([atoms]).pairs(4.0).vectors[_to(atoms, s, b)], axis=1)
        ]
        assert shortest == pytest.approx(min(found, default=4.0), rel=1e-12)


def _to(atoms, centre, symbol):
    pairs = Batch.from_atoms([atoms]).pairs(4.0)
    return np.flatnonzero((pairs.i == centre) & (np.array(atoms.get_chemical_symbols())[pairs.j] == symbol))


@pytest.mark.parametrize("factor, flagged", [(0.5, True), (MARGIN - 1e-6, True), (MARGIN + 1e-6, False), (1.2, False)])
def test_a_dimer_is_outside_below_the_margin(factor, flagged):
    domain = domain_of(crystals(5), 4.5)
    dimer = Atoms("Ar2", positions=[[0, 0, 0], [factor * domain.shortest["Ar-Ar"], 0, 0]])
    far = Atoms("Ar2", positions=[[0, 0, 0], [0, 4.4, 0]])
    np.testing.assert_array_equal(domain.outside(Batch.from_atoms([far, dimer, Atoms("Ar")])), [False, flagged, False])


def test_a_pair_of_species_that_the_data_never_bring_together_is_outside():
    frames = [Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.8]]), Atoms("Cl2", positions=[[0, 0, 0], [0, 0, 2.0]])]
    domain = domain_of(frames, 4.0)
    assert domain.shortest["H-Cl"] == 4.0
    assert domain.outside(Batch.from_atoms([build("dimer"), *frames])).tolist() == [True, False, False]


@pytest.mark.parametrize("make", [small_gp, lambda: GaussianProcess(small_gp().descriptor, small_gp().kernel)], ids=["sparse", "exact"])
def test_predictions_calculators_and_files_tell(make, tmp_path):
    train = crystals(5)
    model = make().fit(train)
    squeezed = train[0].copy()
    squeezed.set_cell(0.6 * squeezed.cell, scale_atoms=True)
    np.testing.assert_array_equal(model.predict([train[1], squeezed, train[2]]).outside, [False, True, False])
    squeezed.calc = model.calculator()
    squeezed.get_potential_energy()
    assert squeezed.calc.results["outside"] is True
    model.save(tmp_path / "m.soapkrr")
    assert soapkrr.load(tmp_path / "m.soapkrr").domain_.shortest == model.domain_.shortest
    np.testing.assert_array_equal(soapkrr.load(tmp_path / "m.soapkrr").predict([train[1], squeezed]).outside, [False, True])
