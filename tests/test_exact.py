"""The exact Gaussian process: equal to dense references on any mixture of labels, derivatives, symmetries, files, bad input."""

import zipfile

import numpy as np
import pytest
from ase import Atoms
from reference import DotProductKernel, GaussianKernel, Observables, ProductKernel, covariances, exact_gp, exact_gp_of_sums
from scipy.stats import multivariate_normal
from sklearn.base import clone
from systems import BULK, build, distort, labelled, small_soap, species, variations
from taylor import assert_derivative

import soapkrr
from soapkrr import (
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    Matern52,
    ModelFileError,
    Observations,
    Pair,
    SparseGP,
    SquaredExponential,
    Standardized,
    Term,
    linear,
)
from soapkrr.baselines import ZBL
from soapkrr.kernels import mixed_products
from soapkrr.regression.exact.compositions import layout_of, observe
from soapkrr.regression.exact.covariance import covariance
from soapkrr.regression.exact.posterior import ObservationProcess
from soapkrr.structures import Batch

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}

KINDS = ("energy", "forces", "stress")

#: Labels of each training structure.
LABELS = {
    "energies": [("energy",)] * 3,
    "forces": [("forces",)] * 2,
    "stress": [("stress",)] * 3,
    "everything": [KINDS] * 2,
    "missing": [("energy", "stress"), ("forces",), (), ("energy", "forces"), ("stress",)],
}

#: (ours, the reference's).
PRODUCT = (DotProduct(2) * SquaredExponential(0.8), ProductKernel(DotProductKernel(2), GaussianKernel(0.8)))
KERNELS = {
    "dot": (DotProduct(3), DotProductKernel(3)),
    "fractional": (DotProduct(2.5), DotProductKernel(2.5)),
    "gaussian": (SquaredExponential(0.6), GaussianKernel(0.6)),
    "product": PRODUCT,
}


def _zero(names):
    return dict.fromkeys(names, 0.0)


def _training(name, labels):
    return [labelled(atoms, kinds) for atoms, kinds in zip(variations(name, len(labels), rattle=0.25), labels, strict=True)]


def _observed(descriptor, frames):
    """Functionals of all labels, their values and noise, structure after structure."""
    functionals, y, noise = [], [], []
    for atoms in frames:
        system = Observables(descriptor, atoms)
        rows = {"energy": [system.energy()], "forces": system.forces(), "stress": system.stress()}
        for kind in [kind for kind in KINDS if kind in atoms.calc.results]:
            functionals += rows[kind]
            y += list(np.ravel(atoms.calc.results[kind]))
            noise += [NOISE[kind] * (np.sqrt(len(atoms)) if kind == "energy" else 1.0)] * len(rows[kind])
    return functionals, y, noise


def _wanted(descriptor, atoms):
    """Total energy, per-atom energies, forces and stress, in that order."""
    system = Observables(descriptor, atoms)
    return [system.energy(), *map(system.atom, range(system.n)), *system.forces(), *(system.stress() if atoms.pbc.all() else [])]


def _in_that_order(p, std=False):
    energy, energies, forces, stress = (
        (p.energy_std, p.energies_std, p.forces_std, p.stress_std) if std else (p.energy, p.energies, p.forces, p.stress)
    )
    return np.concatenate([[energy[0]], energies[0], forces[0].ravel(), stress[0][np.isfinite(stress[0])]])


def _everything(p):
    """All means and standard deviations of a prediction as one array."""
    std = [p.energy_std, *p.energies_std, *map(np.ravel, p.forces_std), p.stress_std.ravel()]
    values = np.concatenate([p.energy, *p.energies, *map(np.ravel, p.forces), p.stress.ravel(), *std])
    return values[np.isfinite(values)]


def _assert_equal(p, mean, variance):
    # The reference's derivatives are numerical: 1e-9 relative; the condition number of the covariance, 1e5 or so, acts on that.
    np.testing.assert_allclose(_in_that_order(p), mean, rtol=0, atol=1e-7 * np.abs(mean).max())
    np.testing.assert_allclose(_in_that_order(p, std=True) ** 2, variance, rtol=1e-6, atol=1e-7 * variance.max())


def _small(kernel=None, names=("Si",), **changes):
    settings = {"noise": NOISE, "signal": 1.0, "baseline": _zero(names), "threads": 1, **changes}
    return GaussianProcess(small_soap(names), kernel or DotProduct(2), **settings)


@pytest.fixture(scope="module")
def crystal():
    """(training structures of unequal sizes, fitted model)."""
    frames = [*variations("vacancy", 2), *variations("primitive", 2), *variations("skewed", 2)]
    return frames, _small().fit(frames)


# --- dense references ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["primitive", "alloy"])
def test_equals_the_dense_process_on_any_labels(name, labels):
    frames, soap = _training(name, LABELS[labels]), small_soap(species(name))
    model = GaussianProcess(soap, DotProduct(3), noise=NOISE, signal=1.3, baseline=_zero(species(name))).fit(frames)
    test = variations(name, 1, seed=1, rattle=0.25)[0]
    _assert_equal(model.predict(test, uncertainty=True), *exact_gp(*_observed(soap, frames), _wanted(soap, test), 3, 1.3))


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_the_dense_process_with_any_kernel(kernel):
    ours, dense = KERNELS[kernel]
    frames, soap = _training("primitive", [KINDS, KINDS, ("forces",)]), small_soap(["Si"])
    test = variations("primitive", 1, seed=1, rattle=0.25)[0]
    p = _small(ours).fit(frames).predict(test, uncertainty=True)
    _assert_equal(p, *exact_gp(*_observed(soap, frames), _wanted(soap, test), dense, 1.0))


def test_equals_the_dense_process_for_a_molecule():
    """Three species, no cell."""
    frames, soap = _training("molecule", [("energy", "forces")] * 2), small_soap(["C", "H", "O"])
    model = GaussianProcess(soap, DotProduct(2), noise=NOISE, signal=0.9, baseline=_zero("CHO")).fit(frames)
    test = variations("molecule", 1, seed=1)[0]
    _assert_equal(model.predict(test, uncertainty=True), *exact_gp(*_observed(soap, frames), _wanted(soap, test), 2, 0.9))


def test_equals_the_dense_process_for_a_sum_of_terms():
    """Two descriptors with other cutoffs, kernels and signals, one not normalised; no pair is near a cutoff, where the third
    derivative jumps and numerical ones suffer."""
    frames = _training("primitive", [KINDS, ("forces",), ("energy",)])
    short = small_soap(["Si"], r_cut=3.0, l_max=1)
    pairs = Standardized(soapkrr.ACSF(["Si"], r_cut=3.4, g2_params=[(1.0, 1.5), (0.3, 2.0)]), (3.0, 0.5, 1.0), (0.5, 2.0, 3.0))
    model = GaussianProcess([Term(short, DotProduct(2), signal=0.7), Term(pairs, SquaredExponential(0.9), signal=1.4)], noise=NOISE)
    model.set_params(baseline=_zero(["Si"])).fit(frames)
    test = variations("primitive", 1, seed=1, rattle=0.25)[0]
    observed, wanted = [_observed(d, frames) for d in (short, pairs)], [_wanted(d, test) for d in (short, pairs)]
    kernels = [DotProductKernel(2), GaussianKernel(0.9)]
    mean, variance = exact_gp_of_sums([o[0] for o in observed], *observed[0][1:], wanted, kernels, [0.7, 1.4])
    _assert_equal(model.predict(test, uncertainty=True), mean, variance)


def test_every_component_has_its_own_noise():
    """Equal to the dense equations with one σ for each row, masked forces left out."""
    rng = np.random.default_rng(3)
    frames, soap = variations("primitive", 3, rattle=0.25), small_soap(["Si"])
    for atoms in frames:
        atoms.info |= {"energy_noise": 0.02 * rng.uniform(0.3, 3), "stress_noise": 0.02 * rng.uniform(0.3, 3, 6), "weight": 2.0}
        atoms.arrays["forces_noise"] = 0.2 * rng.uniform(0.3, 3, size=(2, 3))
    frames[0].arrays["force_mask"] = np.array([True, False])
    frames[0].calc.results["forces"][0] = np.nan
    functionals, y, _ = _observed(soap, frames)
    rows = [[a.info["energy_noise"] * np.sqrt(2), *a.arrays["forces_noise"].ravel(), *a.info["stress_noise"]] for a in frames]
    noise, y = np.concatenate(rows) / np.sqrt(2.0), np.array(y)
    known = np.flatnonzero(np.isfinite(y))
    model = _small(DotProduct(3), observations=Observations()).fit(frames)
    assert model.n_observations_ == {"energy": 3, "forces": 15, "stress": 18}
    test = variations("primitive", 1, seed=1, rattle=0.25)[0]
    dense = exact_gp([functionals[k] for k in known], y[known], noise[known], _wanted(soap, test), 3, 1.0)
    _assert_equal(model.predict(test, uncertainty=True), *dense)


@pytest.mark.parametrize("name", ["primitive", "alloy", "molecule"])
def test_equals_the_sparse_process_on_energies(name):
    """With every environment a sparse point and energies alone the two are one."""
    frames = _training(name, [("energy",)] * 4)
    settings = dict(noise=NOISE, signal=1.3, baseline=_zero(species(name)))
    exact = GaussianProcess(small_soap(species(name)), DotProduct(4), **settings).fit(frames)
    sparse = SparseGP(small_soap(species(name)), DotProduct(4), n_sparse=10**6, tolerance=1e-14, **settings).fit(frames)
    test = variations(name, 1, seed=1, rattle=0.25)[0]
    p, q = (model.predict(test, uncertainty=True) for model in (exact, sparse))
    # Whitened features are good to 1e-8 (eigenvalues are kept down to 1e-14 of the largest).
    scale = np.abs(_in_that_order(p)).max()
    np.testing.assert_allclose(_in_that_order(q), _in_that_order(p), rtol=0, atol=1e-7 * scale)
    variances = _in_that_order(p, std=True) ** 2
    np.testing.assert_allclose(_in_that_order(q, std=True) ** 2, variances, rtol=1e-6, atol=1e-7 * variances.max())


def test_kernel_ridge_is_the_mean_of_the_process():
    frames, test = _training("alloy", LABELS["missing"]), variations("alloy", 2, seed=1)
    settings = dict(baseline=_zero(species("alloy")))
    ridge = KernelRidge(small_soap(species("alloy")), DotProduct(2), alpha=4e-4, force_weight=0.1, stress_weight=1.0, **settings)
    p = ridge.fit(frames).predict(test)
    q = GaussianProcess(small_soap(species("alloy")), DotProduct(2), noise=NOISE, signal=1.0, **settings).fit(frames).predict(test)
    # √4e-4 = 0.02, and two orders of operations.
    np.testing.assert_allclose(np.concatenate(p.forces), np.concatenate(q.forces), rtol=0, atol=1e-11)
    np.testing.assert_allclose(p.energy, q.energy, rtol=1e-12)


def test_log_likelihood_is_that_of_a_normal_law():
    frames, soap = _training("primitive", [KINDS] * 2), small_soap(["Si"])
    functionals, y, noise = _observed(soap, frames)
    model = _small(DotProduct(3)).fit(frames)
    C = covariances(functionals, functionals, 3, 1.0) + np.diag(np.square(noise))
    np.testing.assert_allclose(model.log_likelihood_, multivariate_normal(cov=C).logpdf(y), rtol=1e-7)


# --- covariances of blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [DotProduct(2.5), Matern52(0.7), PRODUCT[0]], ids=["dot", "matern", "product"])
def test_covariances_of_derivatives_are_derivatives_of_covariances(kernel):
    """Of the total energies of two structures, moved or strained: first by one of them, then by both; groups of unequal composition."""
    a, b = variations("alloy", 1)[0], variations("alloy", 1, seed=2)[0]
    del b[4]
    soap, rng = small_soap(species("alloy")), np.random.default_rng(0)
    u, v = rng.normal(size=(len(a), 3)), rng.normal(size=(len(b), 3))
    strain = rng.normal(size=6)
    strain_matrix = strain[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)

    def block(t=0.0, s=0.0, e=0.0):
        left, right = a.copy(), b.copy()
        distort(left, np.eye(3) + e * strain_matrix)
        left.positions += t * u
        right.positions += s * v
        queries = [observe(soap, [atoms], [True], [True]) for atoms in (left, right)]
        return covariance(kernel, *queries)

    K, nu, nv = block(), 1 + 3 * len(a), 1 + 3 * len(b)
    stress = a.get_volume() * (strain * [1, 1, 1, 2, 2, 2])
    # Rows: energy, forces, stress of a; columns: of b. The derivative of any observation of b along a's motion, and the reverse.
    assert_derivative(lambda t: block(t)[0, [0, nv]], -u.ravel() @ K[1:nu][:, [0, nv]])
    assert_derivative(lambda e: block(e=e)[0, :nv], stress @ K[nu:, :nv])
    assert_derivative(lambda s: block(s=s)[[0, 1, nu], 0], -K[[0, 1, nu], 1:nv] @ v.ravel())


def test_symmetric_half_is_the_whole():
    """Of `covariance` with itself only half is computed; structures of several compositions, interleaved, with other labels."""
    frames = [*variations("primitive", 2), *variations("vacancy", 1), *variations("primitive", 1, seed=4)]
    soap = small_soap(["Si"])
    groups = observe(soap, frames, [True, False, True, True], [False, True, False, False])
    whole = covariance(DotProduct(2), groups, groups)
    np.testing.assert_allclose(covariance(DotProduct(2), groups), whole, rtol=0, atol=1e-12 * whole.max())
    assert layout_of(groups).size == len(whole) == (1 + 6) + (1 + 6) + (1 + 21) + (1 + 6)


def test_mixed_products_of_one_atom():
    """The quadratic form behind a force variance is a diagonal block of the covariance."""
    atoms = build("dimer")
    soap = small_soap(species("dimer"))
    (group,) = observe(soap, [atoms], [True], [False])
    K = covariance(DotProduct(2), [group])
    expected = sum(mixed_products(DotProduct(2), v[0, 0].T[:1], x[0], v[0, 0].T[:1], x[0]) for x, v in zip(group.X, group.V, strict=True))
    np.testing.assert_allclose(K[1, 1], expected[0, 0], rtol=1e-12)


# --- linear algebra --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 6, 7, 8, 13, 14, 15, 40])
def test_cholesky_by_panels(n, threads):
    B = np.random.default_rng(n).normal(size=(n, 2 * n))
    K, y = B @ B.T, np.random.default_rng(0).normal(size=(n, 3))
    L = linear.cholesky(K.copy(), threads, panel=7)
    reference = np.linalg.cholesky(K)
    # Condition numbers of such matrices are below 1e3.
    np.testing.assert_allclose(np.tril(L), reference, rtol=0, atol=1e-13 * np.abs(reference).max())
    np.testing.assert_allclose(linear.forward(L, y), np.linalg.solve(reference, y), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(linear.backward(L, y), np.linalg.solve(reference.T, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row", [0, 6, 7, 15])
def test_cholesky_says_which_minor_is_not_positive(row):
    K = np.eye(16)
    K[row, row] = -1.0
    with pytest.raises(np.linalg.LinAlgError, match=f"leading minor {row + 1} of 16"):
        linear.cholesky(K, panel=7)


# --- derivatives and symmetries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kernel", [DotProduct(2), DotProduct(1.5), Matern52(0.8), PRODUCT[0]], ids=["dot", "fraction", "matern", "product"]
)
@pytest.mark.parametrize("name", ["molecule", "alloy", "mixed"])
def test_forces_are_the_derivative_of_the_energy(name, kernel):
    model, atoms = _small(kernel, species(name)).fit(variations(name, 2)), build(name)
    u = np.random.default_rng(0).normal(size=(len(atoms), 3))

    def energy(t):
        moved = atoms.copy()
        moved.positions += t * u
        return model.predict(moved).energy[0]

    assert_derivative(energy, -np.vdot(model.predict(atoms).forces[0], u))


@pytest.mark.parametrize("name", BULK)
def test_stress_is_the_strain_derivative_of_the_energy(name):
    model, atoms = _small(names=species(name)).fit(variations(name, 2)), build(name)
    strain = np.random.default_rng(1).normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)
    stress = model.predict(atoms).stress[0][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
    derivative = atoms.get_volume() * np.vdot(stress, strain)
    assert_derivative(lambda t: model.predict(distort(atoms.copy(), np.eye(3) + t * strain)).energy[0], derivative)


@pytest.fixture(params=["molecule", "alloy", "unwrapped"])
def case(request):
    """(model, structure, prediction)."""
    names = species(request.param)
    model = _small(names=names).fit(variations(request.param, 2))
    return model, build(request.param), model.predict(build(request.param), uncertainty=True)


#: Variances of about 1e-3 eV² are differences of priors of up to 100 eV², known to 1e-14.
ATOL = 1e-9


def test_rotation(case):
    """Energies stay, forces turn; so do standard deviations, of which those of forces keep their sum of squares."""
    model, atoms, p = case
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    q = model.predict(distort(atoms.copy(), Q), uncertainty=True)
    np.testing.assert_allclose(q.energies[0], p.energies[0], rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.forces[0], p.forces[0] @ Q.T, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.energy_std**2, p.energy_std**2, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.energies_std[0] ** 2, p.energies_std[0] ** 2, rtol=0, atol=ATOL)
    np.testing.assert_allclose((q.forces_std[0] ** 2).sum(axis=1), (p.forces_std[0] ** 2).sum(axis=1), rtol=0, atol=ATOL)
    twice = np.array([1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(q.stress**2 @ twice, p.stress**2 @ twice, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.stress_std**2 @ twice, p.stress_std**2 @ twice, rtol=0, atol=ATOL)


def test_translation_wrapping_and_order_of_the_atoms(case):
    model, atoms, p = case
    order = np.random.default_rng(2).permutation(len(atoms))
    moved = atoms[order]
    moved.positions += [0.37, -11.1, 2.9]
    moved.wrap()
    q = model.predict(moved, uncertainty=True)
    for kind in ("energies", "forces"):
        np.testing.assert_allclose(getattr(q, kind)[0], getattr(p, kind)[0][order], rtol=0, atol=ATOL)
        np.testing.assert_allclose(getattr(q, f"{kind}_std")[0] ** 2, getattr(p, f"{kind}_std")[0][order] ** 2, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.stress, p.stress, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.stress_std**2, p.stress_std**2, rtol=0, atol=ATOL)


def test_turned_training_structures_teach_the_same():
    frames, test = variations("alloy", 3), build("alloy")
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = [labelled(distort(atoms.copy(), Q)) for atoms in frames]
    # Not the stress: six components of equal noise are not nine, so a turned tensor has another noise.
    model = _small(names=species("alloy"), observations=Observations(use=("energy", "forces")))
    p, q = (clone(model).fit(f).predict(test, uncertainty=True) for f in (frames, turned))
    np.testing.assert_allclose(_everything(q), _everything(p), rtol=0, atol=1e-7)


def test_a_supercell_has_twice_the_energy_and_twice_its_error(case):
    model, atoms, p = case
    double = atoms.repeat(np.where(atoms.pbc, (1, 1, 2), 1))
    n = len(double) // len(atoms)
    q = model.predict(double, uncertainty=True)
    np.testing.assert_allclose(q.energy, n * p.energy, rtol=0, atol=10 * ATOL)
    np.testing.assert_allclose(q.energy_std**2, n**2 * p.energy_std**2, rtol=0, atol=10 * ATOL)
    np.testing.assert_allclose(q.forces_std[0] ** 2, np.tile(p.forces_std[0] ** 2, (n, 1)), rtol=0, atol=10 * ATOL)
    np.testing.assert_allclose(q.stress_std**2, p.stress_std**2, rtol=0, atol=ATOL)


# --- what must not matter --------------------------------------------------------------------------------------------


def test_order_of_the_structures_does_not_matter(crystal):
    frames, model = crystal
    test = variations("vacancy", 2, seed=5)
    other = clone(model).fit([frames[k] for k in np.random.default_rng(3).permutation(len(frames))])
    np.testing.assert_array_equal(_everything(other.predict(test, uncertainty=True)), _everything(model.predict(test, uncertainty=True)))


def test_number_of_threads_does_not_matter_at_all(crystal):
    frames, model = crystal
    test = variations("vacancy", 2, seed=5)
    other = clone(model).set_params(threads=2).fit(frames)
    np.testing.assert_array_equal(_everything(other.predict(test, uncertainty=True)), _everything(model.predict(test, uncertainty=True)))


def test_structures_do_not_see_each_other(crystal):
    frames, model = crystal
    together = model.predict(frames, uncertainty=True)
    apart = [model.predict(atoms, uncertainty=True) for atoms in frames]
    np.testing.assert_allclose(together.energy, np.concatenate([p.energy for p in apart]), rtol=0, atol=1e-11)
    np.testing.assert_allclose(together.energy_std, np.concatenate([p.energy_std for p in apart]), rtol=0, atol=1e-11)
    np.testing.assert_allclose(np.concatenate(together.forces_std), np.concatenate([p.forces_std[0] for p in apart]), rtol=0, atol=1e-11)


def test_three_equal_measurements_are_one_better_one():
    frames, test = variations("vacancy", 2), variations("vacancy", 2, seed=1)
    noisier = {kind: np.sqrt(3) * value for kind, value in NOISE.items()}
    p, q = _small().fit(frames).predict(test, uncertainty=True), _small(noise=noisier).fit(frames * 3).predict(test, uncertainty=True)
    # Condition number of the covariance: 1e5.
    np.testing.assert_allclose(_everything(q), _everything(p), rtol=0, atol=1e-9)


def test_structures_without_labels_change_nothing(crystal):
    frames, model = crystal
    test = variations("vacancy", 1, seed=5)
    bare = [atoms.copy() for atoms in variations("vacancy", 2, seed=9)]
    other = clone(model).fit([*bare, *frames])
    assert other.n_observations_ == model.n_observations_
    np.testing.assert_array_equal(_everything(other.predict(test, uncertainty=True)), _everything(model.predict(test, uncertainty=True)))


def test_prior_means_and_reference_energies_are_put_back():
    """A constant per atom and core repulsion, taken off the labels and added to predictions, leave what is learnt alone."""
    frames, test = variations("vacancy", 3), build("vacancy")
    p = GaussianProcess(small_soap(["Si"]), DotProduct(2), baseline=[{"Si": -100.0}, ZBL()], noise=NOISE).fit(frames).predict(frames)
    np.testing.assert_allclose(p.energy, [atoms.calc.results["energy"] for atoms in frames], atol=0.2)
    model = GaussianProcess(small_soap(["Si"]), DotProduct(2), baseline=["least-squares", ZBL()], noise=NOISE).fit(frames)
    u = np.random.default_rng(0).normal(size=(len(test), 3))

    def energy(t):
        moved = test.copy()
        moved.positions += t * u
        return model.predict(moved).energy[0]

    assert_derivative(energy, -np.vdot(model.predict(test).forces[0], u))


def test_descriptors_that_learn_from_the_data():
    frames = variations("vacancy", 3)
    descriptor = soapkrr.Compressed(small_soap(["Si"]), n_components=6)
    model = GaussianProcess(descriptor, DotProduct(2), noise=NOISE).fit(frames)
    assert model.process_.parts[0].descriptor.n_features == 6
    assert np.isfinite(model.predict(frames).energy).all()


# --- files and calculator --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GaussianProcess, KernelRidge])
def test_predictions_come_back_bit_for_bit(kind, tmp_path):
    frames = [*_training("alloy", LABELS["missing"]), labelled(Atoms("O2", [[0, 0, 0], [0.2, 0.4, 1.1]]))]
    terms = [
        Term(small_soap(species("alloy")), DotProduct(2.5)),
        Term(Pair(species("alloy"), r_cut=4.0), SquaredExponential(0.5), signal=0.5),
    ]
    model = kind(terms, baseline=["least-squares", ZBL()]).fit(frames)
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert type(loaded) is kind
    assert loaded.get_params() == model.get_params()
    fitted = ("reference_energies_", "noise_", "signals_", "n_observations_", "log_likelihood_")
    assert [getattr(loaded, name) for name in fitted] == [getattr(model, name) for name in fitted]
    test = [*frames, build("alloy")]
    np.testing.assert_array_equal(_everything(loaded.predict(test, uncertainty=True)), _everything(model.predict(test, uncertainty=True)))


@pytest.mark.parametrize("name", ["picked", "factor", "structures.positions", "parts.0.slopes.0"])
def test_a_file_without_one_of_its_arrays(crystal, tmp_path, name):
    crystal[1].save(tmp_path / "m.soapkrr")
    with zipfile.ZipFile(tmp_path / "m.soapkrr") as old, zipfile.ZipFile(tmp_path / "damaged", "w") as new:
        for member in set(old.namelist()) - {f"state.process.{name}.npy"}:
            new.writestr(member, old.read(member))
        assert len(new.namelist()) == len(old.namelist()) - 1
    with pytest.raises(ModelFileError):
        soapkrr.load(tmp_path / "damaged")


def test_calculator(crystal):
    _, model = crystal
    atoms = variations("vacancy", 1, seed=5)[0]
    expected = model.predict(atoms, uncertainty=True)
    atoms.calc = model.calculator(uncertainty=True)
    assert atoms.get_potential_energy() == expected.energy[0]
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces[0])
    np.testing.assert_array_equal(atoms.get_stress(), expected.stress[0])
    np.testing.assert_array_equal(atoms.calc.results["forces_std"], expected.forces_std[0])


# --- bad input -------------------------------------------------------------------------------------------------------


def test_noise_too_small_is_named():
    frames = variations("vacancy", 2) * 2
    with pytest.raises(InputError, match="not positive definite.*raise `noise`"):
        _small(noise=dict.fromkeys(KINDS, 1e-12)).fit(frames)


def test_isolated_atoms(crystal):
    """In the data and in predictions: no neighbours, no forces, an energy of its own."""
    frames, model = crystal
    atom = Atoms("Si", [[0.1, 0.2, 0.3]])
    p = model.predict([atom, *frames[:1]], uncertainty=True)
    np.testing.assert_array_equal(p.forces[0], 0.0)
    np.testing.assert_array_equal(p.forces_std[0], 0.0)
    assert np.isnan(p.stress_std[0]).all() and p.energy_std[0] > 0
    atom.calc = None
    known = labelled(atom.copy())
    known.calc.results["energy"] = -3.0
    learnt = _small(baseline="isolated").fit([*frames, known])
    assert learnt.reference_energies_ == {"Si": -3.0}


def test_unknown_species(crystal):
    frames, model = crystal
    with pytest.raises(InputError, match="frame 1.*Ge|Ge.*frame 1"):
        model.predict([frames[0], Atoms("Ge")])
    with pytest.raises(InputError, match="`species`"):
        _small().fit([*frames, labelled(build("alloy"))])


def test_pairs_out_of_range():
    with pytest.raises(InputError, match="`r_cut`=1.0: no two atoms"):
        GaussianProcess(Pair(["Si"], r_cut=1.0), SquaredExponential(0.5)).fit(variations("vacancy", 2))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(noise={"energies": 0.1}), "`noise`"),
        (dict(signal=-1.0), "`signal`"),
        (dict(baseline={"Ge": 0.0}), "`baseline`"),
        (dict(kernel=None), "`kernel`"),
        (dict(observations={"use": "energy"}), "`observations`"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        _small().set_params(**changes).fit(variations("vacancy", 2))


@pytest.mark.parametrize("changes", [dict(alpha=0.0), dict(force_weight=-1.0), dict(stress_weight=np.nan)], ids=str)
def test_bad_weights_of_kernel_ridge_are_named(changes):
    with pytest.raises(InputError, match=f"`{next(iter(changes))}`"):
        KernelRidge(small_soap(["Si"]), DotProduct(2), **changes).fit(variations("vacancy", 2))


@pytest.mark.parametrize("kernel", [DotProduct(2.5), SquaredExponential(0.7), DotProduct(2) + 0.1 * Matern52(0.8)], ids=repr)
@pytest.mark.parametrize("name", ["alloy", "dimer", "primitive"])
@pytest.mark.parametrize("representers", ["all", "some"])
def test_deviations_of_all_atoms_at_once_are_those_of_one_after_the_other(kernel, name, representers, monkeypatch):
    train, test = variations(name, 4), variations(name, 3, seed=7)
    del train[1].calc.results["forces"]
    given = {"noise": {"energy": 0.01, "forces": 0.1}, "baseline": dict.fromkeys(species(name), 0.0)}
    soap = small_soap(species(name))
    exact, some = GaussianProcess(soap, kernel, **given), SparseGP(soap, kernel, **given, n_sparse=9, representers="observations")
    process = (exact if representers == "all" else some).fit(train).process_
    batch, wanted = Batch.from_atoms(test), frozenset(["energy", "energies"])
    slow = ObservationProcess.energy_deviations(process, batch, wanted)
    for elements, rows in ((500_000, 500_000), (1, 1)):
        monkeypatch.setattr("soapkrr.regression.exact.atoms.ELEMENTS", elements)
        monkeypatch.setattr("soapkrr.regression.exact.posterior.ROWS", rows)
        fast = process.energy_deviations(batch, wanted)
        for kind in wanted:
            # Roots of small differences of variances.
            np.testing.assert_allclose(fast[kind] ** 2, slow[kind] ** 2, rtol=0, atol=1e-10 * max(1.0, slow[kind].max() ** 2))
