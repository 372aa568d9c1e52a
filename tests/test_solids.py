"""What is tried beside the recipe for solids: for which data, and what is different in it."""

from ase import Atoms
from small import crystals
from systems import build

from soapkrr import SOAP, DotProduct, GaussianProcess, RadialScaling, SparseGP, auto, solids
from soapkrr.description import nearest_distance

TWO = [Atoms("NaCl", positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 4, 4], pbc=True)] * 2000


def _recipe(species, r_cut=4.5, n_sparse=300):
    return SparseGP(SOAP(species=species, r_cut=r_cut, n_max=3, l_max=2), DotProduct(zeta=3), n_sparse=n_sparse, threads=1)


def test_one_species_gets_a_longer_cutoff_and_nothing_else():
    frames = crystals(4)
    [(name, model)] = solids.candidates(frames, _recipe(["Ar"]))
    assert name == "longer cutoff"
    assert model.descriptor == SOAP(species=["Ar"], r_cut=min(7.0, round(2.65 * nearest_distance(frames), 1)), n_max=3, l_max=2)
    assert (model.kernel, model.n_sparse, model.threads) == (DotProduct(zeta=3), 300, 1)


def test_several_species_get_sharper_kernels_and_mixed_channels_with_more_points():
    found = dict(solids.candidates(TWO, _recipe(["Na", "Cl"])))
    assert len(found) == 3
    longer, sharper, mixed = found.values()
    assert longer.descriptor == sharper.descriptor
    assert (longer.kernel.zeta, sharper.kernel.zeta, mixed.kernel.zeta) == (3, 4, 4)
    assert (mixed.descriptor.contraction, mixed.n_sparse) == (4, 540)
    assert mixed.descriptor.r_cut == longer.descriptor.r_cut > 4.5


def test_points_are_at_most_half_of_the_environments_and_never_fewer():
    assert solids.candidates(TWO[:200], _recipe(["Na", "Cl"]))[-1][1].n_sparse == 300
    assert solids.candidates(TWO[:300], _recipe(["Na", "Cl"], n_sparse=250))[-1][1].n_sparse == 300
    assert solids.candidates(TWO, _recipe(["Na", "Cl"], n_sparse={"Na": 3, "Cl": 3}))[-1][1].n_sparse == {"Na": 3, "Cl": 3}


def test_a_cutoff_is_never_shortened():
    assert solids.candidates(crystals(4), _recipe(["Ar"], r_cut=9.0)) == []


def test_molecules_and_exact_processes_get_none():
    molecule = build("molecule")
    assert solids.candidates([molecule], _recipe(sorted(set(molecule.get_chemical_symbols())))) == []
    assert solids.candidates(crystals(4), GaussianProcess(SOAP(species=["Ar"], r_cut=4.5), DotProduct(3))) == []


def test_a_candidate_fits(monkeypatch):
    monkeypatch.setattr(auto, "EXACT", 10)
    monkeypatch.setattr(auto, "EXACT_SMALL", 10)
    frames = crystals(6)
    recipe = auto.choose(frames, {"n_sparse": 10, "r_cut": 4.5, "n_max": 3, "l_max": 2}).model
    assert all(model.fit(frames).rank_ <= 10 for _, model in solids.candidates(frames, recipe))


def test_near_neighbours_count_more_where_they_are_nearer():
    near, far = ([Atoms("Cu", cell=[a, a, a], pbc=True)] for a in (2.0, 4.0))
    scaled = _recipe(["Cu"]).set_params(descriptor__scaling=RadialScaling(r0=3.0, m=4.0))
    found = [dict(solids.candidates(frames, scaled)) for frames in (near, far)]
    assert found[0]["nearer scaling"].descriptor.scaling == RadialScaling(r0=2.6, m=4.0)
    assert "nearer scaling" not in found[1]


def test_what_a_variant_changes_stands_among_its_choices(monkeypatch):
    """And a reach that was given is no one's to change."""
    monkeypatch.setattr(auto, "EXACT", 10)
    monkeypatch.setattr(auto, "EXACT_SMALL", 10)
    frames = crystals(6)
    plan = auto.choose(frames, {"n_max": 3, "l_max": 2})
    longer = {c.name: c for c in plan.variants["longer cutoff"].choices}
    assert longer["r_cut"].value == plan.variants["longer cutoff"].model.descriptor.r_cut > plan.model.descriptor.r_cut
    assert [name for name, c in longer.items() if c.reason == "of this variant"] == ["r_cut"]
    assert not auto.choose(frames, {"n_max": 3, "l_max": 2, "r_cut": 4.5}).variants
