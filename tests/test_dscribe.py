"""DScribe's descriptors through the adapter: values are DScribe's own, derivatives belong to them, its traps are shut."""

import sys
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian, environments
from dscribe.core.system import System
from dscribe.descriptors import ACSF, LMBTR, MBTR
from dscribe.descriptors import SOAP as DScribeSOAP
from systems import build, species, variations
from taylor import assert_derivative

from soapkrr import SOAP, DotProduct, DScribe, InputError, SparseGP, load
from soapkrr.descriptors.cutoff import Polynomial

SMALL = dict(r_cut=3.0, n_max=2, l_max=2, sigma=0.4)
DISTANCES = dict(geometry={"function": "distance"}, grid={"min": 0, "max": 4, "sigma": 0.3, "n": 5})
COSINES = dict(geometry={"function": "cosine"}, grid={"min": -1, "max": 1, "sigma": 0.3, "n": 4})

#: {name: (how to make it, which derivatives the table promises)}
KINDS = {
    "SOAP": (partial(DScribeSOAP, **SMALL), "analytic"),
    "SOAP, crossover": (partial(DScribeSOAP, **SMALL, compression={"mode": "crossover", "species_weighting": None}), "analytic"),
    "SOAP, mu1nu1": (partial(DScribeSOAP, **SMALL, compression={"mode": "mu1nu1", "species_weighting": None}), "numerical"),
    "SOAP, poly": (partial(DScribeSOAP, **SMALL, weighting={"function": "poly", "r0": 3.0, "c": 1, "m": 2}), "numerical"),
    "SOAP, pow": (partial(DScribeSOAP, **SMALL, weighting={"function": "pow", "r0": 1.0, "c": 1, "d": 1, "m": 4}), "numerical"),
    "SOAP, polynomial": (partial(DScribeSOAP, **SMALL, rbf="polynomial"), "numerical"),
    "ACSF": (partial(ACSF, r_cut=3.0, g2_params=[[1, 0], [1, 2]], g4_params=[[0.1, 1, 1], [0.1, 2, -1]]), "numerical"),
    "LMBTR": (partial(LMBTR, **DISTANCES, weighting={"function": "exp", "scale": 1.5, "threshold": 1e-2}), "numerical"),
    "LMBTR, angles": (partial(LMBTR, **COSINES, weighting={"function": "exp", "scale": 0.8, "threshold": 1e-2}), "numerical"),
}


@pytest.fixture
def dscribe_understands_ase(monkeypatch):
    """DScribe 2.1's LMBTR hands ASE its arguments by position, which ASE 3.29 moved; for calling DScribe itself."""

    def from_atoms(atoms):
        return System(symbols=atoms.get_chemical_symbols(), positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)

    monkeypatch.setattr(System, "from_atoms", staticmethod(from_atoms))


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def _wrapped(name):
    atoms = build(name)
    atoms.wrap()
    return atoms


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dscribe_understands_ase")
@pytest.mark.parametrize("name", ["alloy", "skewed", "vacancy", "slab", "molecule"])
def test_values_are_dscribes(kind, name):
    """The cluster within our reach holds all that DScribe sees in the (wrapped) crystal; nothing is lost or added."""
    atoms = _wrapped(name)
    theirs = kind[0](species=species(name), periodic=bool(atoms.pbc.any()))
    X = DScribe(theirs, normalize=False).create(atoms)
    expected = theirs.create(atoms)
    # Sums over neighbours in another order.
    np.testing.assert_allclose(X, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_normalised_by_default():
    theirs = DScribeSOAP(**SMALL, species=["Si"], periodic=True)
    raw, X = DScribe(theirs, normalize=False).create(build("vacancy")), DScribe(theirs).create(build("vacancy"))
    np.testing.assert_allclose(X, raw / np.linalg.norm(raw, axis=1)[:, None], rtol=1e-13)


def test_our_soap_and_dscribes_through_the_adapter_have_the_same_forces():
    """One species, one radial function: no √2 differs. Derivatives of two independent codes."""
    atoms, settings = build("vacancy"), dict(species=["Si"], r_cut=4.0, n_max=1, l_max=4, sigma=0.5)
    ours = SOAP(**settings, cutoff=Polynomial(2))
    theirs = DScribe(DScribeSOAP(**settings, weighting={"function": "poly", "r0": 4.0, "c": 1, "m": 2}, periodic=True))
    np.testing.assert_allclose(theirs.create(atoms), ours.create(atoms), atol=1e-8)
    J = []
    for descriptor in (ours, theirs):
        batch, _, env = environments(descriptor, atoms)
        out = np.empty((batch.n_atoms, 6, descriptor.n_features))
        descriptor.strain_jacobian(0, batch.n_atoms, env, out)
        J.append(out)
    # The radial table of ours is good to 1e-9.
    np.testing.assert_allclose(J[1], J[0], atol=1e-7)


def test_a_lattice_vector_changes_nothing():
    """The trap of DScribe's own periodic mode: an atom outside the cell."""
    descriptor = DScribe(DScribeSOAP(**SMALL, species=["Cu"], periodic=True))
    np.testing.assert_allclose(descriptor.create(build("unwrapped")), descriptor.create(_wrapped("unwrapped")), atol=1e-12)


# --- derivatives -----------------------------------------------------------------------------------------------------


def test_the_table_of_derivatives(kind):
    make, derivatives = kind
    assert DScribe(make(species=["Si"])).derivatives == derivatives


@pytest.mark.parametrize("name", ["alloy", "wire-x", "primitive"])
@pytest.mark.parametrize("check", [assert_pullback, assert_jacobian, assert_strain_jacobian])
def test_derivatives(kind, name, check):
    check(DScribe(kind[0](species=species(name), periodic=True)), build(name))


@pytest.mark.parametrize("normalize", [True, False])
def test_analytic_and_numerical_derivatives_agree(normalize, monkeypatch):
    descriptor = DScribe(DScribeSOAP(**SMALL, species=species("alloy"), periodic=True), normalize=normalize)

    def derivatives():
        batch, _, env = environments(descriptor, build("alloy"))
        out = np.empty((batch.n_atoms, 6, descriptor.n_features))
        descriptor.strain_jacobian(0, batch.n_atoms, env, out)
        return out

    analytic = derivatives()
    monkeypatch.setattr(DScribe, "derivatives", "numerical")
    # Truncation and rounding of the difference formula, times distances of up to 4 Å.
    np.testing.assert_allclose(derivatives(), analytic, atol=1e-9 * np.abs(analytic).max())


def test_invariances(kind):
    assert_invariant(DScribe(kind[0](species=species("skewed"), periodic=True)), build("skewed"))


def test_forces_and_stress_of_a_model():
    frames = variations("primitive", 4)
    model = SparseGP(DScribe(DScribeSOAP(**SMALL, species=["Si"], periodic=True)), DotProduct(2), n_sparse=6, threads=1).fit(frames)
    atoms = build("primitive")
    u = np.random.default_rng(0).normal(size=(2, 3))

    def energy(t):
        moved = atoms.copy()
        moved.positions += t * u
        return model.predict(moved).energy[0]

    p = model.predict(atoms, uncertainty=True)
    assert_derivative(energy, -np.vdot(p.forces[0], u))
    assert np.isfinite(p.forces_std[0]).all()
    assert np.isfinite(p.stress_std).all()


def test_threads_do_not_matter():
    frames = variations("vacancy", 6)
    acsf = ACSF(r_cut=3.0, g2_params=[[1, 0], [1, 2]], species=["Si"], periodic=True)
    one, two = (SparseGP(DScribe(acsf), DotProduct(2), n_sparse=6, threads=n).fit(frames).predict(frames) for n in (1, 2))
    np.testing.assert_array_equal(np.concatenate(one.forces), np.concatenate(two.forces))


def test_model_files(kind, tmp_path):
    frames = variations("primitive", 3)
    model = SparseGP(DScribe(kind[0](species=["Si"], periodic=True)), DotProduct(2), n_sparse=5, threads=1).fit(frames)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.descriptor == model.descriptor
    np.testing.assert_array_equal(again.predict(frames).energy, model.predict(frames).energy)


def test_parameters_by_name():
    descriptor = DScribe(DScribeSOAP(**SMALL, species=["Si"], periodic=True))
    assert DScribe("SOAP", {**SMALL, "species": ["Si"], "periodic": True}) == descriptor
    larger = SparseGP(descriptor, DotProduct(2)).set_params(descriptor__parameters__n_max=4).descriptor
    assert larger.n_features == DScribeSOAP(**{**SMALL, "n_max": 4}, species=["Si"]).get_number_of_features()


def test_the_callers_object_is_left_alone():
    theirs = DScribeSOAP(**SMALL, species=["Si"], periodic=True)
    DScribe(theirs).create(build("vacancy"))
    assert theirs.periodic


# --- bad input -------------------------------------------------------------------------------------------------------


def test_other_species_than_the_data():
    descriptor = DScribe(ACSF(r_cut=3.0, g2_params=[[1, 0]], species=["Si"], periodic=True))
    with pytest.raises(InputError, match=r"frame 1: species Cu is unknown.*`species` lists \['Si'\]"):
        SparseGP(descriptor, DotProduct(2)).fit([*variations("primitive", 1), *variations("unwrapped", 1)])


def test_a_crystal_for_a_descriptor_of_clusters():
    descriptor = DScribe(DScribeSOAP(**SMALL, species=["Si", "C", "H", "O"]))
    with pytest.raises(InputError, match=r"frame 1 is periodic.*`periodic`=False"):
        SparseGP(descriptor, DotProduct(2)).fit([*variations("molecule", 1), *variations("primitive", 1)])
    assert len(descriptor.create(build("molecule"))) == 9


def test_positions_that_are_not_numbers_never_reach_dscribe():
    atoms = Atoms("Si2", positions=[[0, 0, 0], [np.nan, 0, 2]])
    with pytest.raises(InputError, match="finite"):
        DScribe(DScribeSOAP(**SMALL, species=["Si"])).create(atoms)


BAD = {
    "`average`": lambda: DScribe(DScribeSOAP(**SMALL, species=["Si"], average="inner")),
    "local descriptor of DScribe": lambda: DScribe(MBTR(**DISTANCES, species=["Si"])),
    "local descriptor": lambda: DScribe("CoulombMatrix", {}),
    "`weighting`": lambda: DScribe(LMBTR(**DISTANCES, species=["Si"])),
    "`weighting` of the LMBTR": lambda: DScribe(LMBTR(**DISTANCES, species=["Si"], weighting={"function": "inverse_square", "r_cut": 4})),
    "`parameters`": lambda: DScribe(DScribeSOAP(**SMALL, species=["Si"]), SMALL),
    "refuses its `parameters`": lambda: DScribe("SOAP", {**SMALL, "species": ["Si"], "sigma": -1.0}),
    "DScribe's SOAP refuses": lambda: DScribe("SOAP", {**SMALL, "species": ["Si"], "colour": 1}),
    "`species`": lambda: DScribe("SOAP", SMALL),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_parameters_are_named(message):
    with pytest.raises(InputError, match=message):
        BAD[message]()


def test_without_dscribe(monkeypatch):
    monkeypatch.setitem(sys.modules, "dscribe.descriptors", None)
    with pytest.raises(InputError, match=r'pip install "soapkrr\[dscribe\]"'):
        DScribe("SOAP", {**SMALL, "species": ["Si"]})
