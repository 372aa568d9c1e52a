"""Exact processes by conjugate gradients: K w without K, and fits, deviations and files equal to those by Cholesky decomposition."""

import numpy as np
import pytest
from derivatives import moved, strained, symmetric
from descriptor_checks import environments
from discovery import descriptors, example, learnt
from systems import BULK, SYSTEMS, build, labelled, small_soap, species, variations
from taylor import assert_derivative

import soapkrr
from soapkrr import DotProduct, GaussianProcess, InputError, KernelRidge, Matern52, Observations, SquaredExponential, Term, backends
from soapkrr.execution.memory import format_memory
from soapkrr.regression.exact import conjugate_gradients, iterative
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.exact.conjugate_gradients import NystromPreconditioner
from soapkrr.regression.exact.covariance import total_covariance
from soapkrr.regression.exact.operator import CovarianceOperator
from soapkrr.regression.terms import SparseTerm

NOISE = {"energy": 0.005, "forces": 0.05, "stress": 0.005}

#: Far below what is asked for by default, so that differences to the direct solution are those of rounding.
TIGHT = 1e-9


def _acsf(names):
    return soapkrr.ACSF(names, r_cut=3.5, g2_params=[(1.0, 1.5), (0.3, 2.0)], g4_params=[(0.1, 2.0, -1.0)], scale=False)


#: Terms by name: what K is made of.
TERMS = {
    "soap": lambda names: [Term(small_soap(names), DotProduct(3), signal=1.3)],
    "fraction": lambda names: [Term(small_soap(names), DotProduct(1.5))],
    "linear": lambda names: [Term(small_soap(names), DotProduct(1), signal=0.7)],
    "acsf": lambda names: [Term(_acsf(names), SquaredExponential(1.5), signal=2.0)],
    "sum": lambda names: [Term(small_soap(names, r_cut=3.0), DotProduct(2)), Term(_acsf(names), Matern52(2.0), signal=0.5)],
    "product": lambda names: [Term(small_soap(names), DotProduct(2) * SquaredExponential(0.8))],
}


def _settings(names, **changes):
    return {"noise": NOISE, "signal": 1.0, "baseline": dict.fromkeys(names, 0.0), "threads": 1, **changes}


def _pair(frames, names, **changes):
    """The same process by both solvers."""
    settings = _settings(names, **changes)
    iterative = GaussianProcess(small_soap(names), DotProduct(3), solver="cg", cg_tolerance=TIGHT, n_preconditioner=8, **settings)
    return iterative.fit(frames), GaussianProcess(small_soap(names), DotProduct(3), solver="cholesky", **settings).fit(frames)


def _values(p, std=False):
    """Everything a prediction holds, by kind."""
    names = [f"{name}_std" if std else name for name in ("energy", "energies", "forces", "stress")]
    return {name: np.concatenate([np.ravel(part) for part in getattr(p, name)]) for name in names}


@pytest.fixture(scope="module")
def crystal():
    """Structures of unequal sizes, with the process by conjugate gradients and by Cholesky decomposition."""
    frames = [*variations("vacancy", 3), *variations("primitive", 2), *variations("skewed", 2)]
    return frames, *_pair(frames, ["Si"])


# --- derivatives of descriptors along a direction ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", descriptors(), ids=lambda kind: kind.__name__)
def test_directional_is_the_derivative_of_the_values(kind):
    """Along a displacement of every atom and a strain, by blocks of atoms."""
    frames, rng = variations("alloy", 4), np.random.default_rng(0)
    descriptor, atoms = learnt(example(kind, species("alloy")), frames), frames[0]
    u, strain = rng.normal(size=(len(atoms), 3)), symmetric(rng)
    _, pairs, env = environments(descriptor, atoms)
    direction = u[pairs.j] - u[pairs.i] + pairs.vectors @ strain
    parts = []
    for start in range(0, len(atoms), 3):
        stop = min(start + 3, len(atoms))
        X, state = descriptor.compute(start, stop, env.pairs)
        parts.append(descriptor.jvp(start, stop, env.pairs, X, state, direction))
    assert np.abs(np.concatenate(parts)).max() > 0
    assert_derivative(lambda t: descriptor.create(moved(strained(atoms, strain, t), u, t)), np.concatenate(parts))


@pytest.mark.parametrize("name", SYSTEMS)
def test_directional_of_soap(name):
    soap, atoms = small_soap(species(name)), build(name)
    u = np.random.default_rng(1).normal(size=(len(atoms), 3))
    _, pairs, env = environments(soap, atoms)
    along = soap.jvp(0, len(atoms), env.pairs, env.X, env.state, u[pairs.j] - u[pairs.i])
    assert_derivative(lambda t: soap.create(moved(atoms, u, t)), along)


@pytest.mark.parametrize("kind", [soapkrr.SOAP, soapkrr.CompressedSOAP, soapkrr.Projected, soapkrr.Standardized])
def test_fast_directional_is_the_slow_one(kind):
    descriptor, atoms = example(kind, species("alloy")), build("alloy")
    _, pairs, env = environments(descriptor, atoms)
    direction = np.random.default_rng(2).normal(size=pairs.vectors.shape)
    args = (0, len(atoms), env.pairs, env.X, env.state, direction)
    slow = soapkrr.descriptors.base.Descriptor.jvp(descriptor, *args)
    np.testing.assert_allclose(descriptor.jvp(*args), slow, rtol=0, atol=1e-12 * np.abs(slow).max())


# --- the operator ------------------------------------------------------------------------------------------------------


def _operator(name, terms, threads=1):
    """Structures of unequal sizes with unequal labels, and K both ways."""
    stress = name in BULK
    frames = [*variations(name, 3, rattle=0.2), variations(name, 1, seed=5)[0].repeat((2, 1, 1) if stress else (1, 1, 1))]
    structures = ObservedStructures(frames, [True, False, True, True], [stress, stress, False, stress])
    dense = total_covariance(terms, [structures.compositions(t.descriptor) for t in terms], 1, np.arange(structures.layout.size))
    return CovarianceOperator(terms, structures, threads), dense


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("name", ["primitive", "alloy", "molecule"])
def test_operator_is_the_covariance(name, terms):
    operator, K = _operator(name, TERMS[terms](species(name)))
    assert operator.size == len(K)
    for w in np.random.default_rng(0).normal(size=(3, len(K))) * np.sqrt(1 / np.diagonal(K).clip(1e-12)):
        np.testing.assert_allclose(operator(w), K @ w, rtol=0, atol=1e-11 * np.abs(K @ w).max())


def test_operator_is_symmetric_and_positive():
    operator, _ = _operator("alloy", TERMS["sum"](species("alloy")))
    v, w = np.random.default_rng(0).normal(size=(2, operator.size))
    np.testing.assert_allclose(v @ operator(w), w @ operator(v), rtol=1e-10)
    assert v @ operator(v) > 0


def test_design_rows_are_the_covariance_of_the_sparse_process():
    """With every environment a sparse point ΦΦᵀ is K between energies, and below K everywhere else."""
    terms = TERMS["sum"](species("alloy"))
    operator, K = _operator("alloy", terms)
    sparse = [SparseTerm.build(t, seen.points, 1e-14) for t, seen in zip(terms, operator.seen, strict=True)]
    Phi = operator.design_rows(sparse)
    energies = np.flatnonzero(np.isin(np.arange(operator.size), operator.layout.offsets))
    np.testing.assert_allclose((Phi @ Phi.T)[np.ix_(energies, energies)], K[np.ix_(energies, energies)], rtol=1e-7)
    # Whitened features are good to 1e-8.
    assert np.linalg.eigvalsh(K - Phi @ Phi.T).min() > -1e-7 * np.abs(K).max()


def test_preconditioner_is_the_inverse():
    rows, r = np.random.default_rng(0).normal(size=(30, 7)), np.random.default_rng(1).normal(size=30)
    expected = np.linalg.solve(rows @ rows.T + np.eye(30), r)
    np.testing.assert_allclose(NystromPreconditioner(rows, 1)(r), expected, rtol=0, atol=1e-12)


# --- fits --------------------------------------------------------------------------------------------------------------


def _assert_equal(iterative, direct, test, scale):
    p, q = (_values(model.predict(test)) for model in (iterative, direct))
    for name, value in p.items():
        # The residual is 1e-9 of the noise; what it means elsewhere is bounded by prior over noise, here some hundred.
        np.testing.assert_allclose(value, q[name], rtol=0, atol=scale * NOISE["forces"], err_msg=name)


def test_fit_equals_the_direct_one(crystal):
    frames, iterative, direct = crystal
    assert iterative.residual_ <= TIGHT and iterative.iterations_ > 3
    assert direct.residual_ is None and direct.iterations_ is None
    assert iterative.n_observations_ == direct.n_observations_
    _assert_equal(iterative, direct, [*frames, *variations("vacancy", 2, seed=7)], 1e-6)


def test_deviations_equal_the_direct_ones(crystal):
    _, iterative, direct = crystal
    test = variations("vacancy", 1, seed=3, rattle=0.3)[0]
    p, q = (_values(model.predict(test, uncertainty=True), std=True) for model in (iterative, direct))
    for name, value in p.items():
        np.testing.assert_allclose(value, q[name], rtol=1e-6, err_msg=name)


def test_deviations_have_the_relative_tolerance(crystal):
    """And they err upwards: what iterations have not yet explained counts as unknown."""
    frames, _, direct = crystal
    test = variations("primitive", 1, seed=3, rattle=0.3)[0]
    settings = _settings(["Si"], solver="cg", cg_tolerance=0.05, n_preconditioner=4)
    loose = GaussianProcess(small_soap(["Si"]), DotProduct(3), **settings).fit(frames)
    p, q = (_values(model.predict(test, uncertainty=True), std=True) for model in (loose, direct))
    ratio = np.concatenate([p[name] / q[name] for name in p])
    assert ratio.min() > 1 - 1e-7 and 1 + 1e-6 < ratio.max() < 1.05


def test_residual_bounds_the_error_at_the_data():
    """Root mean square difference to the exact mean at the observations, in units of their noise."""
    frames = variations("alloy", 4, rattle=0.2)
    settings = _settings(species("alloy"), solver="cg", cg_tolerance=1e-3, n_preconditioner=6)
    model = GaussianProcess(small_soap(species("alloy")), DotProduct(3), **settings).fit(frames)
    direct = GaussianProcess(small_soap(species("alloy")), DotProduct(3), **{**settings, "solver": "cholesky"}).fit(frames)
    p, q = (_observed(m.predict(model.process_.structures.frames)) for m in (model, direct))
    error = np.sqrt(np.mean(((p - q) / model.process_.sigma) ** 2))
    assert 1e-7 < error <= model.residual_ <= 1e-3


def _observed(p):
    """Energy, forces, stress of structure after structure."""
    return np.concatenate([[e, *f.ravel(), *s] for e, f, s in zip(p.energy, p.forces, p.stress, strict=True)])


@pytest.mark.parametrize("name", ["alloy", "molecule"])
def test_missing_labels_and_own_noise(name):
    """Labels of any kind missing, single components masked, noise of their own."""
    kinds = ("energy", "forces", "stress") if name in BULK else ("energy", "forces")
    wanted = [kinds, ("forces",), (), ("energy",), kinds[-1:], kinds]
    frames = [labelled(atoms, k) for atoms, k in zip(variations(name, len(wanted), rattle=0.2), wanted, strict=True)]
    for atoms in frames:
        atoms.arrays["force_mask"] = np.arange(len(atoms)) > 0
        atoms.info["weight"] = 1.7
    pair = _pair(frames, species(name), observations=Observations())
    assert pair[0].n_observations_ == pair[1].n_observations_
    _assert_equal(*pair, variations(name, 2, seed=8), 1e-6)


def test_sum_of_terms():
    frames, names = variations("alloy", 4, rattle=0.2), species("alloy")
    settings = _settings(names, cg_tolerance=TIGHT, n_preconditioner=10)
    iterative, direct = (GaussianProcess(TERMS["sum"](names), solver=s, **settings).fit(frames) for s in ("cg", "cholesky"))
    _assert_equal(iterative, direct, variations("alloy", 2, seed=8), 1e-6)


def test_kernel_ridge():
    frames, names = variations("alloy", 4, rattle=0.2), species("alloy")
    ridge = [KernelRidge(small_soap(names), DotProduct(2), alpha=1e-4, solver=s, cg_tolerance=TIGHT) for s in ("cg", "cholesky")]
    _assert_equal(*(model.fit(frames) for model in ridge), variations("alloy", 2, seed=8), 1e-6)


def test_auto_is_cg_where_the_matrix_is_large(monkeypatch):
    frames = variations("primitive", 3)
    model = GaussianProcess(small_soap(["Si"]), DotProduct(2), **_settings(["Si"]))
    assert model.fit(frames).residual_ is None and np.isfinite(model.log_likelihood_)
    n = sum(model.n_observations_.values())
    monkeypatch.setattr(iterative, "CHOLESKY_BYTES", 8 * n**2 - 1)
    assert model.fit(frames).residual_ <= 1e-4 and np.isnan(model.log_likelihood_)
    monkeypatch.setattr(iterative, "CHOLESKY_BYTES", 8 * n**2)
    assert model.fit(frames).residual_ is None


def test_optimize_finds_the_same_hyperparameters():
    frames = variations("primitive", 4, rattle=0.2)
    models = [GaussianProcess(small_soap(["Si"]), DotProduct(2), **_settings(["Si"], solver=s)) for s in ("cg", "cholesky")]
    iterative, direct = (model.fit(frames, optimize=True) for model in models)
    assert iterative.noise_ == direct.noise_ and iterative.signals_ == direct.signals_


def _in_small_blocks(monkeypatch):
    """Blocks of a few atoms, points and rows, so that small systems have many."""
    for name, size in (("EVALUATED", 3), ("POINTS", 5), ("ROWS", 16), ("GROUP", 8)):
        monkeypatch.setattr(backends.cpu, name, size)


def test_threads_change_nothing(monkeypatch):
    _in_small_blocks(monkeypatch)
    frames, names = variations("alloy", 4, rattle=0.2), species("alloy")
    settings = _settings(names, solver="cg", n_preconditioner=6)
    one, two = (GaussianProcess(small_soap(names), DotProduct(3), **{**settings, "threads": n}).fit(frames) for n in (1, 2))
    assert two.iterations_ == one.iterations_
    test = variations("alloy", 1, seed=3)[0]
    p, q = (_values(model.predict(test)) for model in (one, two))
    for name in p:
        np.testing.assert_allclose(p[name], q[name], rtol=1e-12, atol=1e-12 * np.abs(q[name]).max())


def test_blocks_change_nothing(monkeypatch):
    frames, names = variations("alloy", 4, rattle=0.2), species("alloy")
    direct = GaussianProcess(small_soap(names), DotProduct(3), **_settings(names, solver="cholesky")).fit(frames)
    _in_small_blocks(monkeypatch)
    settings = _settings(names, solver="cg", cg_tolerance=TIGHT, n_preconditioner=7)
    iterative = GaussianProcess(small_soap(names), DotProduct(3), **settings).fit(frames)
    _assert_equal(iterative, direct, variations("alloy", 2, seed=8), 1e-6)


def test_file_holds_mean_and_deviations(crystal, tmp_path):
    _, model, _ = crystal
    model.save(tmp_path / "model.soapkrr")
    loaded = soapkrr.load(tmp_path / "model.soapkrr")
    assert (loaded.residual_, loaded.iterations_) == (model.residual_, model.iterations_)
    test = variations("primitive", 1, seed=3)[0]
    p, q = (m.predict(test, uncertainty=True) for m in (model, loaded))
    for std in (False, True):
        for name, value in _values(p, std).items():
            np.testing.assert_allclose(_values(q, std)[name], value, rtol=1e-12, atol=1e-12 * np.abs(value).max())


# --- what cannot be solved raises --------------------------------------------------------------------------------------


def test_too_few_iterations_raise(monkeypatch):
    monkeypatch.setattr(conjugate_gradients, "MAX_ITERATIONS", 3)
    model = GaussianProcess(small_soap(["Si"]), DotProduct(3), **_settings(["Si"], solver="cg", n_preconditioner=2))
    with pytest.raises(InputError, match="did not converge in 3 iterations.*`noise`"):
        model.fit(variations("vacancy", 3))
    assert not hasattr(model, "process_")


def test_tolerance_below_rounding_raises():
    model = GaussianProcess(small_soap(["Si"]), DotProduct(3), **_settings(["Si"], solver="cg", cg_tolerance=1e-19, n_preconditioner=8))
    with pytest.raises(InputError, match="rounding stops|not positive definite|did not converge"):
        model.fit(variations("vacancy", 3))


def test_indefinite_matrix_raises():
    A = np.diag([1.0, 2.0, -1.0])
    with pytest.raises(InputError, match="not positive definite.*raise `noise`"):
        conjugate_gradients.conjugate_gradients(lambda x: A @ x, lambda r: r, np.ones(3), lambda x, r, _: np.linalg.norm(r) < 1e-9)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"solver": "lu"}, "`solver` must be one of"),
        ({"cg_tolerance": 0.0}, "`cg_tolerance`"),
        ({"n_preconditioner": 0}, "`n_preconditioner` must be a positive integer"),
    ],
)
def test_bad_parameters(changes, match):
    model = GaussianProcess(small_soap(["Si"]), DotProduct(2), **_settings(["Si"]))
    with pytest.raises(InputError, match=match):
        model.set_params(**changes).fit(variations("primitive", 2))


# --- plans -------------------------------------------------------------------------------------------------------------


def test_plan_of_a_fit_has_no_matrix():
    """Its bytes are those of the preconditioner's rows and the descriptors; a limit that it calls enough changes nothing."""
    frames, names = [*variations("vacancy", 4), *variations("skewed", 3)], ["Si"]
    model = GaussianProcess(small_soap(names), DotProduct(3), **_settings(names, solver="cg", n_preconditioner=9))
    plan = model.plan(frames)
    N = sum(plan.rows.values())
    assert plan.memory["conjugate gradients"]["rows of the preconditioner"] == 8 * N * 9
    assert not any("matrix" in items for items in plan.memory.values())
    assert "products with the covariance" in str(plan)
    free = model.fit(frames).predict(frames)
    limited = model.set_params(memory_limit=format_memory(plan.enough)).fit(frames).predict(frames)
    np.testing.assert_array_equal(free.energy, limited.energy)
    with pytest.raises(InputError, match="`memory_limit`=.* is too small for .*would be enough"):
        model.set_params(memory_limit=int(plan.enough / 2)).fit(frames)


def test_plan_of_deviations_counts_solutions(crystal):
    frames, iterative, direct = crystal
    plans = [model.plan(frames[:1], predict=True, uncertainty="forces") for model in (iterative, direct)]
    names = [[step.name for step in plan.steps] for plan in plans]
    assert any("products with the covariance" in name for name in names[0]) and "triangular solves" not in names[0]
    assert "triangular solves" in names[1]
    assert plans[0].flops > plans[1].flops
