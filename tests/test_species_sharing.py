"""Species that share what is learnt of them: likeness of elements, coupled centres, species that no training structure has."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from derivatives import moved
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian, voigt
from systems import build, distort, small_soap, species, variations
from taylor import assert_derivative

from soapkrr import (
    SOAP,
    Compressed,
    CompressedSOAP,
    Coupled,
    CoupledSum,
    DotProduct,
    Energy,
    GaussianProcess,
    InputError,
    Pair,
    SparseGP,
    Term,
    element_embedding,
    element_similarity,
    load,
)
from soapkrr.automatic.variants import of_species
from soapkrr.descriptors.elements import ELECTRONEGATIVITY, LENGTHS, element_features, place_in_table

NAMES = species("alloy")
SETTINGS = dict(species=NAMES, r_cut=4.0, n_max=3, l_max=2, sigma=0.5)


def _renamed(atoms, symbols):
    """Other elements at the same places with the same labels."""
    other = atoms.copy()
    other.symbols[:] = symbols
    other.calc = SinglePointCalculator(other, **atoms.calc.results)
    return other


def _random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- elements --------------------------------------------------------------------------------------------------------


def test_places_in_the_table():
    rows = {1: "H He", 2: "Li Be B C N O F Ne", 4: "K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr"}
    groups = {1: [1, 18], 2: [1, 2, *range(13, 19)], 4: list(range(1, 19))}
    for period, names in rows.items():
        numbers = [Atoms(s).numbers[0] for s in names.split()]
        assert [place_in_table(z) for z in numbers] == [(g, period) for g in groups[period]]
    assert [place_in_table(z) for z in (57, 64, 71, 72, 86, 87, 89, 96)] == [
        (3, 6), (3, 6), (3, 6), (4, 6), (18, 6), (1, 7), (3, 7), (3, 7),
    ]  # fmt: skip


def test_electronegativities_stand_beside_the_right_elements():
    known = {1: 2.20, 6: 2.55, 9: 3.98, 14: 1.90, 26: 1.83, 35: 2.96, 47: 1.93, 55: 0.79, 74: 2.36, 79: 2.54, 92: 1.38}
    assert {z: ELECTRONEGATIVITY[z] for z in known} == known
    assert len(ELECTRONEGATIVITY) == 97


def test_similarity_is_the_explicit_sum():
    numbers, lengths = [29, 47, 13], {"radius": 0.3}
    x = np.array([[*place_in_table(z), covalent_radii[z], ELECTRONEGATIVITY[z]] for z in sorted(numbers)])
    l = {**LENGTHS, **lengths}
    expected = [[np.exp(-0.5 * sum(((a[k] - b[k]) / l[n]) ** 2 for k, n in enumerate(LENGTHS))) for b in x] for a in x]
    np.testing.assert_allclose(element_similarity(numbers, lengths), expected, rtol=1e-13)
    np.testing.assert_array_equal(element_features(numbers), x)


def test_likeness_limits():
    """Very short lengths keep species apart, infinite ones make them the same; K = n loses nothing."""
    short, long = dict.fromkeys(LENGTHS, 1e-3), dict.fromkeys(LENGTHS, np.inf)
    np.testing.assert_allclose(element_similarity(NAMES, short), np.eye(3), atol=1e-15)
    np.testing.assert_array_equal(element_similarity(NAMES, long), np.ones((3, 3)))
    W = element_embedding(NAMES, 3)
    np.testing.assert_allclose(W @ W.T, element_similarity(NAMES), atol=1e-12)


def test_all_elements_with_data_have_a_positive_definite_similarity():
    kappa = element_similarity(range(1, 97))
    assert np.linalg.eigvalsh(kappa).min() > -1e-12
    np.testing.assert_array_equal(np.diag(kappa), 1.0)


def test_an_embedded_density_is_the_sum_over_species():
    """c′_k = Σ_s W_sk c_s: of one atom of each species alone, products of spectra are the similarity's fourth power over norms."""
    W = element_embedding(NAMES, 2)
    soap = CompressedSOAP(**SETTINGS, embedding=W)
    X = np.concatenate([soap.create(Atoms(s)) for s in soap.species])
    np.testing.assert_allclose(X @ X.T, (W @ W.T) ** 2, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"rbf": "bessel"}], ids=["gto", "bessel"])
def test_an_embedding_of_full_rank_that_mixes_nothing_is_plain_soap(options):
    """Orthogonal W: the same products of spectra, whatever the axes of the pseudo-species."""
    plain = SOAP(**SETTINGS, **options).create(build("alloy"))
    for W in (np.eye(3), np.linalg.qr(_random((3, 3)))[0], element_embedding(NAMES, 3, dict.fromkeys(LENGTHS, 1e-3))):
        mixed = CompressedSOAP(**SETTINGS, **options, embedding=W).create(build("alloy"))
        np.testing.assert_allclose(mixed @ mixed.T, plain @ plain.T, atol=1e-12)


def test_like_elements_may_be_exchanged():
    """With one pseudo-species only the positions count."""
    soap = CompressedSOAP(**SETTINGS, embedding=element_embedding(NAMES, 1))
    atoms = build("alloy")
    other = atoms.copy()
    other.symbols[:] = atoms.symbols[::-1]
    np.testing.assert_allclose(soap.create(other), soap.create(atoms), atol=1e-13)


# --- coupled centres -------------------------------------------------------------------------------------------------


def test_products_are_coupled():
    soap, W, atoms = small_soap(NAMES), _random((3, 2)), build("alloy")
    x, z = soap.create(atoms), soap.indices(atoms.numbers)
    kappa = (W @ W.T)[np.ix_(z, z)]
    X, Y = Coupled(soap, W).create(atoms), CoupledSum(soap, W, 0.3).create(atoms)
    np.testing.assert_allclose(X @ X.T, kappa * (x @ x.T), atol=1e-12)
    np.testing.assert_allclose(Y @ Y.T, 0.3 * kappa + 0.7 * (x @ x.T), atol=1e-12)


@pytest.mark.parametrize("kind", [Coupled, CoupledSum])
@pytest.mark.parametrize("check", [assert_pullback, assert_jacobian, assert_strain_jacobian, assert_invariant])
def test_derivatives_by_small_blocks(kind, check, monkeypatch):
    monkeypatch.setattr("soapkrr.descriptors.projection.BUDGET", 1)
    check(kind(CompressedSOAP(**SETTINGS, embedding=element_embedding(NAMES, 2)), _random((3, 2))), build("alloy"))


@pytest.mark.parametrize("kind", [Coupled, CoupledSum])
@pytest.mark.parametrize("estimator", [SparseGP, GaussianProcess])
def test_forces_and_stress_belong_to_the_energy(kind, estimator):
    frames, rng = variations("alloy", 5), np.random.default_rng(0)
    own = {"n_sparse": 20} if estimator is SparseGP else {}
    soap = CompressedSOAP(**SETTINGS, embedding=element_embedding(NAMES, 2))
    model = estimator(kind(soap, element_embedding(NAMES, 3)), DotProduct(3), threads=1, **own).fit(frames)
    atoms, p = frames[0], model.predict(frames[:1])
    u, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)
    assert_derivative(lambda t: model.predict([moved(atoms, u, t)]).energy[0], -np.vdot(p.forces[0], u))
    slope = atoms.get_volume() * p.stress[0] @ voigt(strain)
    assert_derivative(lambda t: model.predict([distort(atoms.copy(), np.eye(3) + t * strain)]).energy[0], slope)


def _same(p, q, rtol=1e-10):
    for name in ("energy", "stress", "energy_std", "stress_std"):
        a, b = getattr(p, name), getattr(q, name)
        np.testing.assert_allclose(a, b, atol=rtol * np.abs(b).max())
    for name in ("forces", "forces_std", "energies", "energies_std"):
        a, b = (np.concatenate(getattr(r, name)) for r in (p, q))
        np.testing.assert_allclose(a, b, atol=rtol * np.abs(b).max())


def test_the_identity_is_the_model_without_coupling():
    frames = variations("alloy", 8)
    train, test = frames[:6], frames[6:]
    soap = small_soap(NAMES)
    p, q = (
        GaussianProcess(d, DotProduct(2), threads=1).fit(train).predict(test, uncertainty=True) for d in (soap, Coupled(soap, np.eye(3)))
    )
    _same(q, p)


def test_the_identity_is_the_sparse_model_without_coupling():
    """On all environments, as those of several species are chosen in another order."""
    frames = variations("alloy", 5)
    soap, n = small_soap(NAMES), sum(map(len, frames))
    p, q = (
        SparseGP(d, DotProduct(2), n_sparse=n, tolerance=1e-9, threads=1).fit(frames).predict(frames[:2], uncertainty=True)
        for d in (soap, Coupled(soap, np.eye(3)))
    )
    # Eigenvalues at the truncation are kept in one and dropped in the other.
    np.testing.assert_allclose(q.energy, p.energy, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(q.forces), np.concatenate(p.forces), atol=1e-3 * np.abs(np.concatenate(p.forces)).max())


def test_a_column_of_ones_forgets_the_species_of_centres():
    """With neighbours alike too, exchanging species changes nothing but the reference energies."""
    frames = variations("alloy", 6)
    soap = CompressedSOAP(**SETTINGS, compression="mu2")
    model = SparseGP(Coupled(soap, np.ones((3, 1))), DotProduct(2), n_sparse=20, baseline=dict.fromkeys(NAMES, 0.0), threads=1).fit(frames)
    other = frames[0].copy()
    other.symbols[:] = other.symbols[::-1]
    p, q = model.predict([frames[0], other], uncertainty=True).energy, model.predict([frames[0]]).forces[0]
    np.testing.assert_allclose(p[1], p[0], rtol=1e-12)
    np.testing.assert_allclose(model.predict([other]).forces[0], q, atol=1e-12)


@pytest.mark.parametrize("kind", [Coupled, CoupledSum])
@pytest.mark.parametrize("estimator", [SparseGP, GaussianProcess])
def test_models_do_all_they_can(kind, estimator, tmp_path):
    frames = variations("alloy", 7)
    own = {"n_sparse": 25} if estimator is SparseGP else {}
    model = estimator(kind(small_soap(NAMES), element_embedding(NAMES, 2)), DotProduct(2), threads=1, **own).fit(frames, optimize=True)
    p = model.predict(frames[:2], uncertainty=True)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(frames[:2], uncertainty=True).energy_std, p.energy_std)
    assert model.leave_out(frames).error.shape == model.leave_out(frames).variance.shape
    np.testing.assert_allclose(np.sqrt(model.posterior([Energy(frames[0])]).covariance[0, 0]), p.energy_std[0], rtol=1e-4)


def _copper(rng):
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.15, rng=rng)
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


def test_an_element_with_one_environment_learns_from_its_neighbour_in_the_table():
    """Silver that is copper by another name: coupled centres know its forces, others do not."""
    rng = np.random.default_rng(0)
    common = [_copper(rng) for _ in range(12)]
    mixed = [_renamed(atoms, ["Ag"] + ["Cu"] * 7) for atoms in common[:3]]
    soap = CompressedSOAP(["Cu", "Ag"], r_cut=4.5, n_max=4, l_max=3, embedding=np.ones((2, 1)))
    truth, errors = np.array([atoms.get_forces()[0] for atoms in common[:2]]), []
    for descriptor in (soap, CoupledSum(soap, element_embedding(["Cu", "Ag"], 2))):
        model = GaussianProcess(descriptor, DotProduct(2), baseline={"Cu": 0.0, "Ag": 0.0}, threads=1).fit([*common[3:], mixed[2]])
        errors.append(np.linalg.norm([forces[0] for forces in model.predict(mixed[:2]).forces] - truth))
    assert errors[1] < 0.5 * errors[0]


def _alloy(symbols, rng):
    atoms = bulk("Cu", a=np.mean([{"Cu": 3.61, "Au": 4.08, "Pd": 3.89}[s] for s in symbols]), cubic=True)
    atoms.symbols[:] = symbols
    atoms.set_cell(atoms.cell.array * rng.uniform(0.98, 1.02), scale_atoms=True)
    atoms.rattle(0.1, rng=rng)
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


def test_a_mixing_curve_from_two_others():
    """Copper in gold after copper in palladium and gold in palladium: plain SOAP has seen no such neighbour of gold."""
    rng = np.random.default_rng(0)
    mixed = [[a] * n + ["Pd"] * (4 - n) for a in ("Cu", "Au") for n in range(5)]
    known = [_alloy(rng.permutation(symbols), rng) for symbols in mixed for _ in range(2)]
    curve = [_alloy(["Cu"] * n + ["Au"] * (4 - n), rng) for n in (1, 2, 3) for _ in range(2)]
    settings, names = dict(species=["Cu", "Au", "Pd"], r_cut=4.5, n_max=4, l_max=3), ["Cu", "Pd", "Au"]
    sharing = CoupledSum(CompressedSOAP(**settings, embedding=element_embedding(names, 2)), element_embedding(names, 3))
    truth = np.array([atoms.get_potential_energy() for atoms in curve]), np.array([atoms.get_forces() for atoms in curve])
    energies, forces = [], []
    for descriptor in (SOAP(**settings), sharing):
        p = GaussianProcess(descriptor, DotProduct(3), noise={"energy": 1e-3, "forces": 0.02}, threads=1).fit(known).predict(curve)
        energies.append(np.abs(p.energy - truth[0]).mean())
        forces.append(np.abs(np.array(p.forces) - truth[1]).mean())
    assert energies[1] < 0.5 * energies[0] and forces[1] < 0.5 * forces[0]


# --- species that no training structure has --------------------------------------------------------------------------

METALS = ["Cu", "Ag", "Au"]


def _two_of_three(extrapolate, baseline=None):
    frames = [_renamed(atoms, (["Cu", "Ag"] * len(atoms))[: len(atoms)]) for atoms in variations("alloy", 6)]
    soap = CompressedSOAP(METALS, r_cut=4.0, n_max=3, l_max=2, embedding=element_embedding(METALS, 2), extrapolate_species=extrapolate)
    model = SparseGP(CoupledSum(soap, element_embedding(METALS, 3)), DotProduct(2), n_sparse=20, baseline=baseline, threads=1).fit(frames)
    new = frames[0].copy()
    new.symbols[0] = "Au"
    return model, frames, new


REFERENCES = {"Cu": 0.0, "Ag": 0.0, "Au": 0.0}


def test_an_unknown_species_is_refused_unless_asked_for():
    model, frames, new = _two_of_three(False, REFERENCES)
    with pytest.raises(InputError, match=r"frame 1: species Au was not in the training data.*extrapolate_species"):
        model.predict([frames[0], new])


def test_an_unknown_species_needs_a_reference_energy():
    model, _, new = _two_of_three(True)
    with pytest.raises(InputError, match=r"frame 0: species Au .* reference energy.*`baseline`"):
        model.predict([new])


def test_an_unknown_species_is_predicted_with_wider_error_bars(tmp_path):
    model, frames, new = _two_of_three(True, REFERENCES)
    model.save(tmp_path / "model")
    p = load(tmp_path / "model").predict([frames[0], new], uncertainty=True)
    assert p.energies_std[1][0] > 2 * p.energies_std[0][0]
    assert p.energies_std[1][0] < model.signals_[0]
    assert p.outside.tolist() == [False, True]


def test_every_species_of_a_plain_soap_must_be_in_the_data():
    frames = variations("alloy", 4)
    soap = SOAP([*NAMES, "Au"], r_cut=4.0, n_max=2, l_max=1)
    model = SparseGP(soap, DotProduct(2), n_sparse=9, baseline=dict.fromkeys([*NAMES, "Au"], 0.0), threads=1).fit(frames)
    new = frames[0].copy()
    new.symbols[0] = "Au"
    with pytest.raises(InputError, match="species Au was not in the training data"):
        model.predict([new])


# --- candidates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names, n", [("Cu Ag", 4), ("Cu Ag Au", 4), ("Cu Ag Au Pd", 4), ("Ni Cu Ag Au Pd Pt Al", 4)])
def test_candidates_are_few_and_distinct(names, n):
    found = of_species(small_soap(names.split()))
    assert len({name for name, _ in found}) == len({descriptor for _, descriptor in found}) == len(found) == n
    mixed = [descriptor for _, descriptor in found if isinstance(descriptor, CompressedSOAP)]
    assert all(2 <= d.embedding.shape[1] <= 6 for d in mixed[1:]) and isinstance(found[-1][1], CoupledSum)


def test_one_species_and_unknown_elements_have_few_candidates():
    assert of_species(small_soap(["Cu"])) == []
    assert [name for name, _ in of_species(small_soap(["Cu", "Es"]))] == ["species with all"]


# --- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "`species` holds Es, of which no radius": lambda: element_similarity(["Cu", "Es"]),
    r"`lengths` has unknown names \['mass'\]": lambda: element_similarity(["Cu"], {"mass": 1.0}),
    r"`lengths\['radius'\]` must be a positive": lambda: element_similarity(["Cu"], {"radius": -1.0}),
    "`n_components` must be an integer from 1 to 2": lambda: element_embedding(["Cu", "Ag"], 3),
    "`coupling` must be a finite array": lambda: Coupled(small_soap(NAMES), np.eye(2)),
    "`coupling` has a row of zeros: O": lambda: Coupled(small_soap(NAMES), np.diag([0.0, 1.0, 1.0])),
    "`share` must be": lambda: CoupledSum(small_soap(NAMES), np.eye(3), 1.0),
    "learns from the data itself": lambda: Coupled(Compressed(small_soap(NAMES), n_components=2), np.eye(3)),
    "`extrapolate_species` needs an `embedding`": lambda: CompressedSOAP(**SETTINGS, extrapolate_species=True),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_parameters_are_named(message):
    with pytest.raises(InputError, match=message):
        BAD[message]()


def test_terms_couple_all_or_none():
    soap = small_soap(NAMES)
    terms = Term(Coupled(soap, np.eye(3)), DotProduct(2), n_sparse=9) + Term(Pair(NAMES, r_cut=4.0), DotProduct(1), n_sparse=9)
    with pytest.raises(InputError, match="one term couples centres of different species"):
        SparseGP(terms).fit(variations("alloy", 3))
