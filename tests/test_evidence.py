"""The log marginal likelihood: equal to dense normal laws, gradients by Taylor slope, and its maximum found from anywhere in bounds."""

import numpy as np
import pytest
from reference import Functional, Observables, covariances
from scipy.stats import multivariate_normal
from systems import labelled, small_soap, variations
from taylor import assert_derivative

from soapkrr import DotProduct, GaussianProcess, InputError, Observations, SparseGP, SquaredExponential, Term
from soapkrr.linear import triangle
from soapkrr.regression import evidence
from soapkrr.regression.evidence import BOUNDS, exact_evidence, maximise, sparse_evidence

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}

# --- formulas --------------------------------------------------------------------------------------------------------

LEVELS = {"energy": 0.3, "forces": 2.0}
SCALES = np.array([1.3, 1.3, 1.3, 0.4, 0.4])


def _rows():
    rng = np.random.default_rng(0)
    return {"energy": rng.normal(size=(4, 5)), "forces": rng.normal(size=(30, 5))}, {t: rng.normal(size=n) for t, n in COUNTS.items()}


COUNTS = {"energy": 4, "forces": 30}


def _factors():
    rows, y = _rows()
    tables = {t: np.column_stack([rows[t], y[t]]) for t in rows}
    return {t: triangle(np.asfortranarray(table)) if len(table) > 6 else table for t, table in tables.items()}


def test_sparse_evidence_is_a_normal_law():
    rows, y = _rows()
    phi = np.concatenate([rows[t] * SCALES for t in COUNTS])
    sigma = np.concatenate([np.full(n, LEVELS[t]) for t, n in COUNTS.items()])
    expected = multivariate_normal(cov=phi @ phi.T + np.diag(sigma**2)).logpdf(np.concatenate([y[t] for t in COUNTS]))
    np.testing.assert_allclose(sparse_evidence(_factors(), COUNTS, LEVELS, SCALES)[0], expected, rtol=1e-12)


def test_slopes_of_the_sparse_evidence():
    factors, rng = _factors(), np.random.default_rng(1)
    along, columns = dict(zip(LEVELS, rng.normal(size=2), strict=True)), rng.normal(size=5)
    _, by_noise, by_scale = sparse_evidence(factors, COUNTS, LEVELS, SCALES)

    def value(t):
        return sparse_evidence(factors, COUNTS, {k: v * np.exp(t * along[k]) for k, v in LEVELS.items()}, SCALES * np.exp(t * columns))[0]

    assert_derivative(value, sum(by_noise[t] * along[t] for t in along) + by_scale @ columns)


def _dense():
    """Two covariances, targets, kinds, weights, noise and scales."""
    rng = np.random.default_rng(2)
    K = [B @ B.T for B in rng.normal(size=(2, 12, 15))]
    return K, rng.normal(size=12), np.array([0, 1, 1] * 4), rng.uniform(0.5, 2, size=12), np.array([0.3, 1.1]), np.array([0.8, 1.7])


def test_exact_evidence_is_a_normal_law():
    K, y, kinds, weights, noise, scales = _dense()
    C = scales[0] ** 2 * K[0] + scales[1] ** 2 * K[1] + np.diag((noise[kinds] * weights) ** 2)
    np.testing.assert_allclose(exact_evidence(*_dense())[0], multivariate_normal(cov=C).logpdf(y), rtol=1e-12)


def test_slopes_of_the_exact_evidence():
    K, y, kinds, weights, noise, scales = _dense()
    u, v = np.random.default_rng(3).normal(size=(2, 2))
    _, by_noise, by_scale = exact_evidence(*_dense())

    def value(t):
        return exact_evidence(K, y, kinds, weights, noise * np.exp(t * u), scales * np.exp(t * v))[0]

    assert_derivative(value, by_noise @ u + by_scale @ v)


def test_a_singular_covariance_is_refused():
    K, y, kinds, weights, _, scales = _dense()
    with pytest.raises(np.linalg.LinAlgError):
        exact_evidence(K, y, kinds, weights, np.array([1e-9, 1.0]), scales)


# --- of models -------------------------------------------------------------------------------------------------------


def _with_noise(frames):
    """Structures that state σ of their own."""
    rng = np.random.default_rng(3)
    for atoms in frames:
        atoms.info |= {"energy_noise": 0.02 * rng.uniform(0.3, 3), "stress_noise": 0.02 * rng.uniform(0.3, 3, 6)}
        atoms.arrays["forces_noise"] = 0.2 * rng.uniform(0.3, 3, size=(len(atoms), 3))
    return frames


def _observed(frames):
    """(functionals, y, σ) of structures that state their noise."""
    functionals, y, sigma = [], [], []
    for atoms in frames:
        system, results = Observables(small_soap(["Si"]), atoms), atoms.calc.results
        functionals += [system.energy(), *system.forces(), *system.stress()]
        y += [results["energy"], *results["forces"].ravel(), *results["stress"]]
        sigma += [atoms.info["energy_noise"] * np.sqrt(len(atoms)), *atoms.arrays["forces_noise"].ravel(), *atoms.info["stress_noise"]]
    return functionals, np.array(y), np.array(sigma)


class _Points:
    """Sparse points as a structure of the dense reference."""

    def __init__(self, x):
        self.x, self.n, self.numbers = x, len(x), np.full(len(x), 14)


@pytest.mark.parametrize("level", [0.1, 1.0, 7.0])
def test_evidence_of_a_sparse_model(level):
    """log N(y; 0, K_oM K_MM⁻¹ K_Mo + Σ) with a σ for every row, whatever the model's own level."""
    frames = _with_noise(variations("primitive", 3, rattle=0.25))
    noise = {kind: level * value for kind, value in NOISE.items()}
    settings = dict(noise=noise, signal=1.0, baseline={"Si": 0.0}, observations=Observations())
    model = SparseGP(small_soap(["Si"]), DotProduct(3), n_sparse=4, tolerance=1e-14, **settings).fit(frames)
    functionals, y, sigma = _observed(frames)
    points = _Points(model.process_.terms[0].points[0])
    M = [Functional(points, value=row) for row in np.eye(points.n)]
    cross = covariances(functionals, M, 3, 1.0)
    C = cross @ np.linalg.solve(covariances(M, M, 3, 1.0), cross.T) + np.diag(sigma**2)
    np.testing.assert_allclose(model.log_likelihood_, multivariate_normal(cov=C).logpdf(y), rtol=1e-7)


def test_evidence_of_an_exact_model():
    frames = _with_noise(variations("primitive", 3, rattle=0.25))
    model = GaussianProcess(small_soap(["Si"]), DotProduct(3), signal=1.0, baseline={"Si": 0.0}, observations=Observations()).fit(frames)
    functionals, y, sigma = _observed(frames)
    C = covariances(functionals, functionals, 3, 1.0) + np.diag(sigma**2)
    np.testing.assert_allclose(model.log_likelihood_, multivariate_normal(cov=C).logpdf(y), rtol=1e-7)


def test_sparse_and_exact_evidence_agree_where_the_models_do():
    """Energies alone with every environment a sparse point."""
    frames = [labelled(atoms, ("energy",)) for atoms in [*variations("vacancy", 4), *variations("primitive", 3)]]
    settings = dict(noise=NOISE, baseline={"Si": 0.0})
    exact = GaussianProcess(small_soap(["Si"]), DotProduct(2), **settings).fit(frames)
    sparse = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=10**6, tolerance=1e-14, **settings).fit(frames)
    np.testing.assert_allclose(sparse.log_likelihood_, exact.log_likelihood_, rtol=1e-7)


# --- the maximum -----------------------------------------------------------------------------------------------------


def _parabola(centre, curvature=3.0):
    """A concave function of the logarithms with its maximum at ``centre`` {kind: σ}, and slope 0 for the signals; and a record of calls."""
    called = []

    def value(noise, signals):
        called.append((noise, signals))
        away = {t: np.log(noise[t] / centre[t]) for t in noise}
        return -curvature * sum(a**2 for a in away.values()), {t: -2 * curvature * a for t, a in away.items()}, np.zeros(len(signals))

    return value, called


@pytest.mark.parametrize("curvature", [0.3, 3.0, 1e6])
@pytest.mark.parametrize("factor", [1e-4, 1 / 30, 1.0, 30.0, 1e4])
def test_the_maximum_of_a_parabola(factor, curvature):
    centre = {"energy": 3e-3, "forces": 0.05}
    value, _ = _parabola(centre, curvature)
    found = maximise(value, {t: min(factor * c, 1.0) for t, c in centre.items()}, [2.0])
    # The search ends where another step would bring less than `RESOLUTION`.
    distance = np.sqrt(2 * evidence.RESOLUTION / curvature)
    np.testing.assert_allclose(np.log([found.noise[t] / centre[t] for t in centre]), 0, atol=distance)
    assert found.signals == pytest.approx((2.0,))


@pytest.mark.parametrize("centre", [1e-9, 1e9])
def test_bounds_are_never_left(centre):
    value, called = _parabola({"energy": centre, "stress": 1e-3})
    found = maximise(value, {"energy": 0.01, "stress": 0.01}, [1.0])
    assert found.noise["energy"] == pytest.approx(np.clip(centre, *BOUNDS["energy"]))
    # exp(log x) is x but for rounding.
    for noise, signals in called:
        for t, level in noise.items():
            assert BOUNDS[t][0] * (1 - 1e-12) <= level <= BOUNDS[t][1] * (1 + 1e-12)
        assert BOUNDS["signal"][0] <= signals[0] <= BOUNDS["signal"][1]


@pytest.mark.parametrize("start", [1e-4, 0.05, 0.9])
def test_singular_covariances_are_stepped_around(start):
    """Below 1e-2 nothing can be evaluated; the maximum would lie at 1e-4. Started inside the forbidden region, the search leaves it."""

    def value(noise, signals):
        if noise["energy"] < 1e-2:
            raise np.linalg.LinAlgError
        away = np.log(noise["energy"] / 1e-4)
        return -(away**2), {"energy": -2 * away}, np.zeros(1)

    found = maximise(value, {"energy": start}, [1.0])
    assert 1e-2 <= found.noise["energy"] < 1.5e-2


def test_singular_everywhere_is_an_error():
    def value(noise, signals):
        raise np.linalg.LinAlgError

    with pytest.raises(InputError, match="no `noise`"):
        maximise(value, {"energy": 0.01}, [1.0])


# --- fits without knobs ----------------------------------------------------------------------------------------------

MODELS = {
    "exact": lambda **settings: GaussianProcess(small_soap(["Si"]), DotProduct(2), **settings),
    "environments": lambda **settings: SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=60, **settings),
    "observations": lambda **settings: SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=80, representers="observations", **settings),
    "terms": lambda **settings: GaussianProcess(
        [Term(small_soap(["Si"]), DotProduct(2)), Term(small_soap(["Si"], r_cut=3.0), SquaredExponential(0.5), signal=0.1)], **settings
    ),
}


@pytest.fixture(scope="module")
def noisy():
    """(training structures whose forces carry a noise of 0.1 eV/Å, test structures without)."""
    frames, rng = variations("vacancy", 12, rattle=0.15), np.random.default_rng(8)
    for atoms in frames:
        atoms.calc.results["forces"] = atoms.calc.results["forces"] + rng.normal(scale=0.1, size=(len(atoms), 3))
    return frames, variations("vacancy", 20, seed=1, rattle=0.15)


def _errors(model, test):
    p = model.predict(test)
    forces = np.concatenate(p.forces) - np.concatenate([atoms.calc.results["forces"] for atoms in test])
    return np.array([np.abs(p.energy - [atoms.calc.results["energy"] for atoms in test]).mean(), np.abs(forces).mean()])


@pytest.mark.parametrize("name", MODELS)
def test_noise_wrong_by_thirty_ends_at_the_same_errors(name, noisy):
    train, test = noisy
    start = {"energy": 2e-3, "forces": 0.1, "stress": 2e-3}
    models = [
        MODELS[name](noise={kind: factor * level for kind, level in start.items()}, threads=1).fit(train, optimize=True)
        for factor in (1.0, 30.0, 1 / 30)
    ]
    expected, *others = (_errors(model, test) for model in models)
    for errors in others:
        np.testing.assert_allclose(errors, expected, rtol=0.1)
    # Where representers are fewer than observations, what they cannot describe counts as noise.
    assert 0.07 < models[0].noise_["forces"] < 0.2
    assert all(BOUNDS[kind][0] <= model.noise_[kind] <= BOUNDS[kind][1] for model in models for kind in model.noise_)


@pytest.mark.parametrize("name", MODELS)
def test_the_evidence_rises_and_the_fit_is_reproducible(name, noisy):
    train, test = noisy
    plain, first, second = (MODELS[name](threads=1).fit(train, optimize=optimize) for optimize in (False, True, True))
    assert first.log_likelihood_ > plain.log_likelihood_ + 1
    assert first.noise_ == second.noise_
    np.testing.assert_array_equal(_errors(first, test), _errors(second, test))


def test_an_exact_fit_is_the_one_with_the_parameters_found(noisy):
    """Given from the start, the noise found leads to the same evidence: nothing is left behind at the old values."""
    train, _ = noisy
    found = MODELS["exact"]().fit(train, optimize=True)
    again = MODELS["exact"](noise=found.noise_, signal=found.signals_[0]).fit(train)
    np.testing.assert_allclose(again.log_likelihood_, found.log_likelihood_, rtol=1e-12)


def test_a_sparse_fit_is_the_one_with_the_parameters_found(noisy):
    train, test = noisy
    found = MODELS["environments"]().fit(train, optimize=True)
    again = MODELS["environments"](noise=found.noise_, signal=found.process_.terms[0].signal).fit(train)
    np.testing.assert_allclose(again.log_likelihood_, found.log_likelihood_, rtol=1e-9)
    np.testing.assert_allclose(_errors(again, test), _errors(found, test), rtol=1e-6)


@pytest.mark.parametrize("name", ["exact", "environments", "observations"])
def test_stated_noise_keeps_its_ratios(name, noisy):
    """Structures whose noise is ten times the others' stay so; the common level is found: σ of the good ones is that of the clean fit."""
    train, rng = [atoms.copy() for atoms in noisy[0]], np.random.default_rng(9)
    for atoms, original in zip(train, noisy[0], strict=True):
        atoms.calc = original.calc
    bad = [atoms for k, atoms in enumerate(train) if k % 2]
    for atoms in bad:
        labelled(atoms)
        atoms.calc.results["forces"] = atoms.calc.results["forces"] + rng.normal(scale=1.0, size=(len(atoms), 3))
        atoms.info["config_type"] = "bad"
    observations = Observations(config_noise={"bad": {"forces": 0.5}})
    model = MODELS[name](noise={"forces": 0.05}, observations=observations).fit(train, optimize=True)
    assert 0.07 < model.noise_["forces"] < 0.2


def test_a_common_factor_of_all_signals_is_found_for_observations(noisy):
    """All observations as representers are the exact process, and so is their evidence."""
    train, _ = noisy
    one, two = (labelled(atoms.copy(), ("energy", "forces")) for atoms in train[:2])
    settings = dict(noise={"energy": 0.01, "forces": 0.1}, baseline={"Si": 0.0})
    exact = GaussianProcess(small_soap(["Si"]), DotProduct(2), **settings).fit([one, two], optimize=True)
    model = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=10**6, representers="observations", tolerance=1e-15, **settings)
    # Two searches, each to the resolution of one step.
    assert abs(model.fit([one, two], optimize=True).log_likelihood_ - exact.log_likelihood_) < 5 * evidence.RESOLUTION
