"""Automatic models keep atoms apart where they have no data, and nothing else changes."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from small import crystals, lennard_jones
from systems import variations
from taylor import assert_derivative

import soapkrr
from soapkrr import ZBL, CompressedSOAP, CoreRepulsion, DotProduct, GaussianProcess, InputError
from soapkrr.auto import Settings, choose
from soapkrr.repulsion import RISES, repulsion
from soapkrr.structures import Batch


@pytest.fixture(scope="module")
def alloys():
    """Copper and gold in one lattice, labelled."""
    rng, frames = np.random.default_rng(3), []
    for k in range(14):
        atoms = bulk("Cu", a=3.8 + 0.02 * k, cubic=True).repeat((1, 1, 2))
        atoms.numbers[rng.permutation(8)[: 1 + k % 6]] = 79
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        atoms.get_forces()
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def model(alloys):
    return soapkrr.fit(alloys)


@pytest.fixture(scope="module")
def without(alloys):
    return choose(alloys, settings=Settings(repulsion=False)).fit(alloys)


def test_dimers_rise_monotonically(model):
    (wall,) = model.prior_means_
    assert set(wall.distances) == {"Cu-Cu", "Cu-Au", "Au-Au"}
    for name, start in wall.distances.items():
        r = start * np.linspace(RISES, 0.1, 80)
        energies = model.predict([Atoms(name.split("-"), positions=[[0, 0, 0], [0, d, 0]]) for d in r]).energy
        assert (np.diff(energies) > 0).all()


def test_without_walls_some_dimer_falls(without):
    """The test above can fail."""
    assert without.prior_means_ == ()
    r = np.linspace(2.2, 0.3, 40)
    falls = [(np.diff(without.predict([Atoms(s, positions=[[0, 0, 0], [0, d, 0]]) for d in r]).energy) < 0).any() for s in ("Cu2", "Au2")]
    assert any(falls)


def test_nothing_that_is_known_changes(model, without, alloys):
    a, b = (m.predict(alloys, uncertainty=True) for m in (model, without))
    for name in ("energy", "energy_std", "stress"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(np.concatenate(a.forces), np.concatenate(b.forces))
    assert model.noise_ == without.noise_ and not a.outside.any()


def test_atoms_thrown_together_do_not_collapse(model):
    rng = np.random.default_rng(1)
    for _ in range(3):
        atoms = Atoms("Cu4Au4", scaled_positions=rng.random((8, 3)), cell=[4.9, 4.9, 4.9], pbc=True)
        atoms.calc = model.calculator(False)
        BFGS(atoms, logfile=None).run(fmax=0.1, steps=60)
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(8, 1)]
        assert distances.min() > 1.7


def test_it_is_said_and_saved(model, tmp_path):
    (choice,) = [c for c in model.choices_ if c.name == "repulsion"]
    assert choice.value == model.prior_means_[0].distances
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 1.2]])
    assert loaded.predict(dimer).energy == model.predict(dimer).energy and loaded.predict(dimer).outside.all()


def test_few_distances_say_little(model):
    """Where the data have one pair of two species, far apart, the wall does not stand there."""
    frames = crystals(4)
    frames[0].numbers[:1] = 36
    frames[0] = lennard_jones(frames[0], "energy", "forces")
    wall = choose(frames).fit(frames).prior_means_[0]
    assert wall.distances["Ar-Kr"] < 2.0 < wall.distances["Ar-Ar"]


def test_walls_of_few_structures_stand_below_what_more_of_them_would_show():
    """Nearest distances of normal law, one pair in each structure: of a thousand more, hardly any is below the wall of a dozen."""
    rng = np.random.default_rng(0)
    several = [Atoms("Ar2", [[0, 0, 0], [0, 0, d]]) for d in rng.normal(3.6, 0.15, 1012)]
    few = [lennard_jones(atoms, "energy", "forces") for atoms in several[:12]]
    wall = choose(few).fit(few).prior_means_[0].distances["Ar-Ar"]
    distances = np.array([atoms.get_distance(0, 1) for atoms in several])
    assert wall < 0.95 * distances[:12].min() and (distances[12:] < wall).mean() < 0.002 < (distances[12:] < distances[:12].min()).mean()


def test_no_wall_where_the_prior_mean_repels(alloys):
    """Of the dimers of this model, none needs more than what ZBL does."""
    assert all(isinstance(mean, ZBL) for mean in soapkrr.fit(alloys, baseline="zbl", search=False).prior_means_)


@pytest.mark.parametrize("compression, shares", [("mu1nu1", True), ("crossover", False)])
def test_pairs_know_how_close_others_come_where_species_share(alloys, compression, shares):
    """A wall starts at the shortest distance of all pairs in units of covalent radii, yet not far below that of its own pair."""
    soap = CompressedSOAP(["Cu", "Au"], r_cut=5.0, n_max=3, l_max=2, compression=compression)
    model = GaussianProcess(soap, DotProduct(2), threads=1).fit(alloys)
    shortest = model.domain_.shortest
    contact = {"Cu-Cu": 2 * 1.32, "Cu-Au": 1.32 + 1.36, "Au-Au": 2 * 1.36}
    least = min(shortest[name] / contact[name] for name in contact)
    known = {name: max(0.9 * shortest[name], least * contact[name]) if shares else shortest[name] for name in contact}
    assert repulsion(model).distances == pytest.approx({name: 0.95 * r for name, r in known.items()}, rel=1e-3)
    assert not np.array_equal([known[name] for name in contact], [shortest[name] for name in contact]) or not shares


@pytest.mark.parametrize("system", ["alloy", "skewed"])
def test_walls_are_smooth(system):
    (atoms,) = variations(system, 1)
    species = sorted(set(atoms.get_chemical_symbols()))
    names = [f"{a}-{b}" for k, a in enumerate(species) for b in species[k:]]
    wall = CoreRepulsion(dict.fromkeys(names, 2.9), dict.fromkeys(names, 20.0))
    batch = Batch.from_atoms([atoms])
    mean, direction = wall.evaluate(batch), np.random.default_rng(0).normal(size=(len(atoms), 3))
    assert mean.energies.sum() > 0

    def energy(h):
        moved = atoms.copy()
        moved.positions += h * direction
        return wall.evaluate(Batch.from_atoms([moved])).energies.sum()

    assert_derivative(energy, -(mean.forces * direction).sum(), 0.01 * 0.5 ** np.arange(26))


def test_an_isolated_pair_has_the_formula():
    wall = CoreRepulsion({"H-O": 1.0}, {"H-O": 10.0})
    for r in (0.3, 0.9, 0.999, 1.0, 1.5):
        depth = max(1.0 - r, 0)
        energy = wall.evaluate(Batch.from_atoms([Atoms("OH", positions=[[0, 0, 0], [r, 0, 0]])])).energies
        np.testing.assert_allclose(energy, 0.5 * 10 * depth**3 / (depth + 0.02), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "distances, stiffness, named",
    [
        ({"H-O": 1.0}, {"O-H": 1.0}, "same pairs"),
        ({"H": 1.0}, {"H": 1.0}, "'H'"),
        ({"H-Xx": 1.0}, {"H-Xx": 1.0}, "H-Xx"),
        ({"H-O": -1.0}, {"H-O": 1.0}, "distances"),
        ({"H-O": 1.0}, {"H-O": np.nan}, "stiffness"),
        (1.0, {}, "mappings"),
    ],
)
def test_walls_that_make_no_sense(distances, stiffness, named):
    with pytest.raises(InputError, match=named):
        CoreRepulsion(distances, stiffness)
