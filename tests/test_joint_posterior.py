"""Joint posterior of observables: equal to dense references, on its diagonal to predictions, linear, refused where it has no meaning."""

from functools import cache

import numpy as np
import pytest
from reference import Observables, covariances, dtc_covariance, exact_covariance
from systems import build, small_soap, species, variations

from soapkrr import DotProduct, Energy, Force, GaussianProcess, InputError, Observable, SparseGP, SquaredExponential, Stress, Term

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}


def _all(atoms):
    """Energy, energies of atoms, forces and stress of a structure, in that order."""
    stress = [Stress(atoms, v) for v in range(6)] if atoms.pbc.all() else []
    return [Energy(atoms), *(Energy(atoms, i) for i in range(len(atoms))), *Force.all(atoms).ravel(), *stress]


def _diagonal(p, s=0, std=False):
    energy, energies, forces, stress = (
        (p.energy_std, p.energies_std, p.forces_std, p.stress_std) if std else (p.energy, p.energies, p.forces, p.stress)
    )
    return np.concatenate([[energy[s]], energies[s], forces[s].ravel(), stress[s][np.isfinite(stress[s])]])


def _models(name):
    """Every process, with two terms where it is cheap."""
    frames, s = variations(name, 3), small_soap(species(name))
    kernel, baseline = DotProduct(2), dict.fromkeys(species(name), -1.5)
    terms = [Term(s, kernel, n_sparse=8), Term(small_soap(species(name), r_cut=3.0), SquaredExponential(0.7), n_sparse=5, signal=0.3)]
    settings = {"noise": NOISE, "baseline": baseline, "threads": 1}
    return {
        "sparse": SparseGP(s, kernel, n_sparse=10, **settings).fit(frames),
        "sum": SparseGP(terms, **settings).fit(frames),
        "subset": SparseGP(s, kernel, n_sparse=15, representers="observations", **settings).fit(frames),
        "cholesky": GaussianProcess(s, kernel, solver="cholesky", **settings).fit(frames),
        "cg": GaussianProcess(s, kernel, solver="cg", cg_tolerance=1e-9, **settings).fit(frames),
    }


_cached = cache(_models)


@pytest.mark.parametrize("kind", ["sparse", "sum", "subset", "cholesky", "cg"])
@pytest.mark.parametrize("name", ["primitive", "alloy", "mixed"])
def test_diagonal_is_that_of_predictions(name, kind):
    model = _cached(name)[kind]
    frames = variations(name, 2, seed=3)
    observables = [_all(atoms) for atoms in frames]
    joint = model.posterior(observables)
    p = model.predict(frames, uncertainty=True)
    np.testing.assert_allclose(joint.mean, np.concatenate([_diagonal(p, s) for s in range(2)]), rtol=1e-10, atol=1e-10)
    prior = max(model.signals_) ** 2
    variance = np.concatenate([_diagonal(p, s, std=True) for s in range(2)]) ** 2
    np.testing.assert_allclose(np.diagonal(joint.covariance), variance, rtol=1e-7, atol=1e-10 * prior)
    np.testing.assert_array_equal(joint.covariance, joint.covariance.T)
    assert np.linalg.eigvalsh(joint.covariance).min() > -1e-9 * joint.covariance.max()


def _observed(s, frames):
    """Functionals of every label of the frames and their noise."""
    observed, noise = [], []
    for atoms in frames:
        system = Observables(s, atoms)
        for kind, rows in (("energy", [system.energy()]), ("forces", system.forces()), ("stress", system.stress())):
            observed += rows
            noise += [NOISE[kind] * (np.sqrt(len(atoms)) if kind == "energy" else 1.0)] * len(rows)
    return observed, noise


def _wanted(s, frames, observables):
    """The reference's functionals of a list of the frames' observables, in the order of `_all`."""
    wanted = []
    for atoms in frames:
        system = Observables(s, atoms)
        wanted += [system.energy(), *map(system.atom, range(system.n)), *system.forces(), *system.stress()]
    assert len(wanted) == len(observables)
    return wanted


@pytest.mark.parametrize("name", ["primitive", "alloy"])
def test_equals_the_dense_reference(name):
    """All blocks between two structures: energies, forces and stress with each other."""
    s, signal, zeta = small_soap(species(name)), 0.8, 3
    frames, test = variations(name, 2, rattle=0.25), variations(name, 2, seed=1, rattle=0.25)
    settings = {"noise": NOISE, "signal": signal, "baseline": dict.fromkeys(species(name), 0.0)}
    observables = [o for atoms in test for o in _all(atoms)]
    observed, noise = _observed(s, frames)
    wanted = _wanted(s, test, observables)
    exact = GaussianProcess(s, DotProduct(zeta), **settings).fit(frames).posterior(observables).covariance
    reference = exact_covariance(observed, noise, wanted, zeta, signal)
    # The reference's derivatives are numerical, and its posterior a difference of priors.
    scale = np.diagonal(covariances(wanted, wanted, zeta, signal)).max()
    np.testing.assert_allclose(exact, reference, rtol=0, atol=1e-9 * scale)
    model = SparseGP(s, DotProduct(zeta), n_sparse=6, tolerance=1e-14, **settings).fit(frames)
    points = model.process_.terms[0].points
    numbers = np.repeat([build(name)[[a.symbol for a in build(name)].index(symbol)].number for symbol in s.species], list(map(len, points)))
    reference = dtc_covariance(np.concatenate(points), numbers, observed, noise, wanted, zeta, signal)
    np.testing.assert_allclose(model.posterior(observables).covariance, reference, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("kind", ["sparse", "cholesky"])
def test_expressions_are_linear(kind):
    model, (a, b) = _cached("alloy")[kind], variations("alloy", 2, seed=5)
    base = [Energy(a), Energy(b), Force(a, 0, "x"), Force(b, -1, 2), Stress(a, "xy"), Energy(b, 2)]
    joint = model.posterior(base)
    formation = 2.5 * (base[0] - base[1] / 2) - 3
    mixed = 1 - base[2] + np.float64(2) * base[3] * 0.5 + base[4] - sum([base[5], base[5]])
    combined = model.posterior(np.array([formation, mixed], dtype=object))
    C = np.array([[2.5, -1.25, 0, 0, 0, 0], [0, 0, -1, 1, 1, -2]])
    np.testing.assert_allclose(combined.mean, C @ joint.mean + [-3, 1], rtol=1e-12)
    np.testing.assert_allclose(combined.covariance, C @ joint.covariance @ C.T, rtol=1e-9, atol=1e-11)
    nothing = model.posterior(base[0] - Energy(a.copy()) + 7)
    assert nothing.mean == [7] and nothing.std == [0]


def test_curvature_by_forces_is_the_curvature_by_energies():
    """A second derivative by central differences of energies or of forces: means and bars agree to the order of the step."""
    model, atoms = _cached("alloy")["sparse"], build("alloy")

    def moved(t):
        copy = atoms.copy()
        copy.positions[1, 0] += t
        return copy

    gaps = []
    for h in (0.04, 0.02):
        by_energies = (Energy(moved(h)) - 2 * Energy(atoms) + Energy(moved(-h))) / h**2
        by_forces = -(Force(moved(h), 1, 0) - Force(moved(-h), 1, 0)) / (2 * h)
        both = model.posterior([by_energies, by_forces])
        gaps.append([both.mean[0] - both.mean[1], both.std[0] - both.std[1]])
    np.testing.assert_allclose(np.array(gaps[0]) / gaps[1], 4, rtol=0.05)


def test_functions_by_the_delta_method():
    model, (a, b) = _cached("alloy")["sparse"], variations("alloy", 2, seed=5)
    joint = model.posterior([Energy(a), Energy(b)])
    matrix = np.array([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]])
    linear = joint.of(lambda e: matrix @ e)
    np.testing.assert_allclose(linear.covariance, matrix @ joint.covariance @ matrix.T, rtol=1e-7)
    ratio = joint.of(lambda e: e[0] / e[1])
    given = joint.of(lambda e: e[0] / e[1], gradient=lambda e: np.array([1 / e[1], -e[0] / e[1] ** 2]))
    np.testing.assert_allclose(ratio.std, given.std, rtol=1e-6)
    draws = joint.sample(4000, seed=1)
    np.testing.assert_allclose(ratio.std, (draws[:, 0] / draws[:, 1]).std(), rtol=0.05)
    np.testing.assert_allclose(joint.correlation, joint.covariance / np.outer(joint.std, joint.std))
    assert "Posterior of 2 observables" in repr(joint)


def test_structures_are_taken_as_they_were():
    model, atoms = _cached("alloy")["sparse"], build("alloy")
    before = model.posterior(Energy(atoms)).mean
    observable = Energy(atoms)
    atoms.positions[0] += 0.3
    assert model.posterior(observable).mean == before
    assert model.posterior(observable - Energy(atoms)).std > 0


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Stress(build("molecule"), 0), "periodic in three directions"),
        (lambda: Stress(build("alloy"), 6), "component"),
        (lambda: Stress(build("alloy"), "zx"), "component"),
        (lambda: Force(build("alloy"), 5, 0), "`atom`"),
        (lambda: Force(build("alloy"), 0, "w"), "axis"),
        (lambda: Energy("Si2"), "ase.Atoms"),
        (lambda: Energy(build("alloy")) / 0, "divided by zero"),
        (lambda: Energy(build("alloy")) * np.nan, "multiplied"),
        (lambda: _cached("alloy")["sparse"].posterior([]), "empty"),
        (lambda: _cached("alloy")["sparse"].posterior(build("alloy")), "observables"),
        (lambda: _cached("alloy")["sparse"].posterior(Observable(constant=1.0)), "no structure"),
        (lambda: _cached("alloy")["sparse"].posterior(Energy(build("molecule"))), "not in the training data"),
        (lambda: _cached("alloy")["sparse"].posterior(Energy(build("alloy"))).of(lambda e: e, lambda e: np.ones(2)), "gradient"),
        (lambda: _cached("alloy")["sparse"].posterior(Energy(build("alloy"))).of(lambda e: e * np.inf), "not finite"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("n", ["observables", "array"])
def test_arithmetic_with_what_is_no_number(n):
    with pytest.raises(TypeError):
        Energy(build("alloy")) * (Energy(build("alloy")) if n == "observables" else np.ones(2))


@pytest.mark.parametrize("kind", ["sparse", "sum", "subset", "cholesky"])
def test_the_same_on_a_gpu(kind, cuda):
    """Joint posterior, samples, gains and contributions with arrays of a device."""
    model, (a, b) = _cached("alloy")[kind], variations("alloy", 2, seed=5)
    on_gpu = type(model)(**{**model.get_params(deep=False), "device": "cuda"})
    vars(on_gpu).update({name: value for name, value in vars(model).items() if name.endswith("_")})
    observables = [Energy(a) - Energy(b), Force(a, 0, "x"), Stress(b, "xy")]
    here, there = model.posterior(observables), on_gpu.posterior(observables)
    np.testing.assert_allclose(there.mean, here.mean, rtol=1e-8)
    np.testing.assert_allclose(there.covariance, here.covariance, rtol=1e-6, atol=1e-9)
    here, there = (m.sample(3, seed=2).predict([a, b]) for m in (model, on_gpu))
    np.testing.assert_allclose(there.energy, here.energy, rtol=1e-7)
    np.testing.assert_allclose(there.forces[1], here.forces[1], rtol=1e-5, atol=1e-6)
    here, there = (m.variance_drop([a, b], observables, n=2) for m in (model, on_gpu))
    np.testing.assert_allclose(there.left, here.left, rtol=1e-5, atol=1e-9)
    frames = variations("alloy", 3)
    here, there = (m.attribution(a, "energy", frames) for m in (model, on_gpu))
    np.testing.assert_allclose(there.contributions, here.contributions, rtol=1e-5, atol=1e-5)
