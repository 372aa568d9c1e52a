"""Models with ``device="cuda"`` against the same on the CPU: on the simulated device, and with ``pytest -m gpu`` on a real one."""

import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from small import crystals
from systems import small_soap, species, variations

import soapkrr
from soapkrr import (
    ACSF,
    Compressed,
    CompressedSOAP,
    CoupledSum,
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    Linear,
    Matern52,
    Pair,
    PropertyGP,
    SparseGP,
    SquaredExponential,
    Stratified,
    Term,
)
from soapkrr.execution.memory import device_limit
from soapkrr.regression.exact import wide
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.exact.conjugate_gradients import NystromPreconditioner
from soapkrr.regression.exact.operator import CovarianceOperator
from soapkrr.regression.terms import SparseTerm

#: Rounding of sums in another order, through a regression: relative to the spread of each quantity.
TOLERANCE = 1e-10


def everything(p) -> dict[str, np.ndarray]:
    """Every array of a prediction, flat."""
    parts = {name: getattr(p, name) for name in p.__dataclass_fields__}
    return {name: np.concatenate([np.ravel(v) for v in value]) for name, value in parts.items() if value is not None}


def assert_same(p, q):
    """Two predictions agree to `TOLERANCE`; standard deviations, which are roots of differences, to the root of it times their size."""
    a, b = everything(p), everything(q)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(np.isnan(a[name]), np.isnan(b[name]))
        known = ~np.isnan(a[name])
        size = max(np.abs(b[name][known]).max(initial=0.0), 1e-3)
        loose = 1e3 if name.endswith("_std") else 1.0
        np.testing.assert_allclose(a[name][known], b[name][known], rtol=0, atol=loose * TOLERANCE * size, err_msg=name)


def both(model, frames, **options):
    """The model fitted on the CPU and on the GPU."""
    return [clone(model).set_params(device=device).fit(frames, **options) for device in ("cpu", "cuda")]


SI = ["Si"]
MODELS = {
    "soap": ("primitive", SparseGP(small_soap(SI), DotProduct(2), n_sparse=6)),
    "several species": ("alloy", SparseGP(small_soap(["O", "Sr", "Ti"]), DotProduct(2), n_sparse=9)),
    "real exponent": ("dimer", SparseGP(small_soap(["H", "Cl"]), DotProduct(2.5), n_sparse=6)),
    "matern": ("primitive", SparseGP(small_soap(SI), Matern52(0.5) + 0.1 * DotProduct(2), n_sparse=6)),
    "acsf": (
        "primitive",
        SparseGP(ACSF(SI, r_cut=3.0, g2_params=[(1.0, 2.0)], g4_params=[(0.1, 2.0, -1.0)]), SquaredExponential(3.0), n_sparse=5),
    ),
    "terms": (
        "primitive",
        SparseGP(Term(Pair(SI, r_cut=3.0, n_basis=5), Linear()) + Term(small_soap(SI), DotProduct(2), n_sparse=5), baseline={"Si": -1.0}),
    ),
    "contracted": (
        "dimer",
        SparseGP(CompressedSOAP(["H", "Cl"], r_cut=4.0, n_max=3, l_max=2, compression="mu1nu1"), DotProduct(2), n_sparse=6),
    ),
    "coupled centres": ("dimer", SparseGP(CoupledSum(small_soap(["H", "Cl"]), np.eye(2)), DotProduct(2), n_sparse=6)),
    "components": ("primitive", SparseGP(Compressed(small_soap(SI), n_components=5), DotProduct(2), n_sparse=6)),
}


OBSERVED = {
    "exact": ("primitive", GaussianProcess(small_soap(SI), DotProduct(2))),
    "exact, several species": ("dimer", GaussianProcess(small_soap(["H", "Cl"]), DotProduct(2))),
    "exact, matern": ("primitive", GaussianProcess(small_soap(SI), Matern52(0.5))),
    "ridge": ("primitive", KernelRidge(small_soap(SI), DotProduct(2), alpha=1e-4)),
    "observations": ("primitive", SparseGP(small_soap(SI), DotProduct(2), n_sparse=9, representers="observations")),
}


@pytest.mark.parametrize("name, optimize", [(name, way) for name in OBSERVED for way in (False, True) if not (way and name == "ridge")])
def test_models_of_observations_equal_those_of_the_cpu(cuda, name, optimize):
    system, model = OBSERVED[name]
    *train, test = variations(system, 4)
    on_cpu, on_gpu = both(model, train, **({"optimize": True} if optimize else {}))
    for kind, level in on_cpu.noise_.items():
        assert on_gpu.noise_[kind] == pytest.approx(level, rel=1e-9 if not optimize else 1e-3)
    if not optimize:
        assert_same(on_gpu.predict([test, train[0]], uncertainty=True), on_cpu.predict([test, train[0]], uncertainty=True))


def test_a_property_is_refused(cuda, tmp_path):
    PropertyGP(small_soap(["Ar"]), DotProduct(2), noise=0.1, target="intensive").fit(crystals(2), [1.0, 2.0]).save(tmp_path / "m.soapkrr")
    with pytest.raises(InputError, match="`device`='cuda' is for potentials"):
        soapkrr.load(tmp_path / "m.soapkrr", device="cuda")


@pytest.mark.parametrize("name", MODELS)
def test_fit_and_predictions_equal_those_of_the_cpu(cuda, name):
    system, model = MODELS[name]
    *train, test = variations(system, 5)
    on_cpu, on_gpu = both(model, train)
    assert on_gpu.n_observations_ == on_cpu.n_observations_
    np.testing.assert_allclose(on_gpu.log_likelihood_, on_cpu.log_likelihood_, rtol=1e-9)
    assert_same(on_gpu.predict([test, train[0]], uncertainty=True), on_cpu.predict([test, train[0]], uncertainty=True))


@pytest.fixture
def fitted(cuda):
    # Environments so much alike that without truncation weights of 1e5 times the energy would cancel.
    return both(SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=6, tolerance=1e-6), crystals(4))


def test_fitted_arrays_are_of_the_host(fitted):
    def arrays(value):
        if isinstance(value, (list, tuple)):
            return [a for part in value for a in arrays(part)]
        if isinstance(value, dict):
            return arrays(list(value.values()))
        return [value] if hasattr(value, "shape") else []

    held = arrays(fitted[1].state())
    assert held and all(type(a) is np.ndarray for a in held if a.shape)


def test_a_model_moves_between_devices(fitted, tmp_path):
    on_gpu, test = fitted[1], crystals(2, seed=1)
    expected = on_gpu.predict(test, uncertainty=True)
    on_gpu.save(tmp_path / "model")
    for device in ("cpu", "cuda"):
        assert_same(soapkrr.load(tmp_path / "model", device=device).predict(test, uncertainty=True), expected)
    assert_same(pickle.loads(pickle.dumps(on_gpu)).predict(test, uncertainty=True), expected)
    assert_same(on_gpu.set_params(device="cpu").predict(test, uncertainty=True), expected)


def test_calculator(fitted):
    atoms = crystals(1, seed=2)[0]
    results = []
    for model in fitted:
        probe = atoms.copy()
        probe.calc = model.calculator()
        results.append([probe.get_potential_energy(), *probe.get_forces().ravel(), *probe.get_stress(), probe.calc.results["energy_std"]])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("optimize", ["evidence", "cross-validation"])
def test_optimised_noise_is_the_same(cuda, optimize):
    on_cpu, on_gpu = both(SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=6), crystals(6), optimize=optimize)
    for kind, level in on_cpu.noise_.items():
        assert on_gpu.noise_[kind] == pytest.approx(level, rel=1e-5)


@pytest.mark.parametrize("selection", ["fps", "cur", "leverage", "random", "kmeans", Stratified(by="half")])
def test_selection_picks_the_same_points(cuda, selection):
    frames = crystals(6)
    for k, atoms in enumerate(frames):
        atoms.info["half"] = str(k // 3)
    on_cpu, on_gpu = both(SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=4, selection=selection), frames)
    np.testing.assert_allclose(on_gpu.process_.terms[0].points[0], on_cpu.process_.terms[0].points[0], rtol=0, atol=1e-12)


def test_blocks_of_a_prediction_do_not_matter(fitted, monkeypatch):
    model, test = fitted[1], crystals(3, seed=1)
    expected = model.predict(test, uncertainty=True)
    for name, value in (("EVALUATED", 5), ("DISPLACED", 3)):
        monkeypatch.setattr(soapkrr.backends.gpu, name, value)
    assert_same(model.predict(test, uncertainty=True), expected)


def test_a_limit_of_memory_holds_on_the_gpu(cuda, fitted, monkeypatch):
    model, test, pool, halved = fitted[1], crystals(1, seed=1)[0].repeat(3), cuda.get_default_memory_pool(), []
    expected, free_memory = model.predict(test), soapkrr.backends.free_memory
    monkeypatch.setattr(soapkrr.backends, "free_memory", lambda: (halved.append(limit), free_memory()))
    limit, outside = 2**26, pool.get_limit()
    with pytest.raises(InputError, match="`memory_limit`=.* is too small on the GPU|the memory of the GPU does not hold"):
        while True:
            with device_limit(cuda, limit):
                within = model.predict(test)
                assert 0 < pool.get_limit() - pool.used_bytes() <= limit
            assert_same(within, expected)
            done, limit = limit, limit // 1.3
    assert done in halved  # smaller blocks, the same results
    assert pool.get_limit() == outside


@pytest.mark.parametrize(
    "model", [SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=6), GaussianProcess(small_soap(["Ar"]), DotProduct(2))]
)
def test_estimators_keep_their_limit_on_the_gpu(cuda, model, monkeypatch):
    limits, pool = [], cuda.get_default_memory_pool()

    class Recorded:
        def __getattr__(self, name):
            return getattr(pool, name)

        def set_limit(self, size):
            limits.append(size - pool.used_bytes())
            pool.set_limit(size=size)

    monkeypatch.setattr(cuda, "get_default_memory_pool", Recorded)
    model = clone(model).set_params(device="cuda", memory_limit="1GB").fit(crystals(2))
    assert limits[0] == 10**9
    limits.clear()
    model.predict(crystals(1))
    assert limits[0] == 10**9 and pool.get_limit() == 0


def test_auto_takes_the_gpu_where_there_is_one(cuda, monkeypatch):
    assert soapkrr.backends.library("auto") is sys.modules["cupy"]
    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", lambda: 0)
    assert soapkrr.backends.library("auto") is np


def test_without_a_gpu_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"soapkrr\[gpu\]"):
        SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=6, device="cuda").fit(crystals(2))
    assert SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=6, device="auto").fit(crystals(2)).predict(crystals(1)).energy.shape == (1,)
    with pytest.raises(InputError, match="`device`"):
        SparseGP(small_soap(["Ar"]), DotProduct(2), device="gpu").fit(crystals(2))


@pytest.mark.parametrize("name", ["primitive", "alloy", "molecule"])
def test_covariance_operator(cuda, name):
    """K w on the device, and rows of its preconditioner."""
    descriptors = [small_soap(species(name)), ACSF(species(name), r_cut=3.5, g2_params=[(1.0, 1.5)], scale=False)]
    terms = [Term(descriptors[0], DotProduct(2.5)), Term(descriptors[1], SquaredExponential(2.0))]
    frames = variations(name, 3)
    stress = bool(frames[0].pbc.all())
    structures = ObservedStructures(frames, [True, False, True], [stress] * 3)
    ours, theirs = CovarianceOperator(terms, structures, 1), CovarianceOperator(terms, structures, 1, cuda)
    w = np.random.default_rng(0).normal(size=ours.size)
    expected = ours(w)
    np.testing.assert_allclose(theirs(w), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    sparse = [SparseTerm.build(t, seen.points, 1e-10) for t, seen in zip(terms, ours.seen, strict=True)]
    rows = theirs.design_rows([term.moved(cuda) for term in sparse])
    assert isinstance(rows, cuda.ndarray)
    expected = ours.design_rows(sparse)
    np.testing.assert_allclose(rows.get(), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    r = np.random.default_rng(1).normal(size=len(expected))
    np.testing.assert_allclose(NystromPreconditioner(rows, 1)(r), NystromPreconditioner(expected, 1)(r), rtol=0, atol=1e-9)


def test_exact_process_by_conjugate_gradients(cuda):
    """Solved on the device, with fitted arrays of NumPy."""
    frames = variations("alloy", 3, rattle=0.2)
    model = GaussianProcess(small_soap(species("alloy")), DotProduct(2), solver="cg", cg_tolerance=1e-10, n_preconditioner=8)
    ours, theirs = both(model.set_params(noise={"energy": 0.01, "forces": 0.1, "stress": 0.01}, signal=1.0), frames)
    assert isinstance(theirs.process_.parts[0].slopes[0], np.ndarray)
    test = variations("alloy", 1, seed=3)
    p, q = (m.predict(test, uncertainty=("energy", "stress")) for m in (ours, theirs))
    # Both are within 1e-10 of the noise of the exact solution, and so are deviations in relative terms.
    np.testing.assert_allclose(q.forces[0], p.forces[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(q.energy_std, p.energy_std, rtol=1e-6)
    np.testing.assert_allclose(q.stress_std, p.stress_std, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=6),
        SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=20, representers="observations"),
        GaussianProcess(small_soap(["Ar"]), DotProduct(2)),
    ],
    ids=["sparse", "subset", "exact"],
)
def test_models_grow_as_on_the_cpu(cuda, model, monkeypatch):
    """With masked forces, atom by atom as of wide structures too, and standard deviations of totals alone."""
    monkeypatch.setattr(wide, "WIDE", 0)
    frames = crystals(5)
    for atoms in frames:
        atoms.set_array("force_mask", np.arange(len(atoms)) < 2)
    results = []
    for device in ("cuda", "cpu"):
        fitted = clone(model).set_params(device=device, observations=soapkrr.Observations()).fit(frames[:3]).update(frames[3])
        results.append((fitted.log_likelihood_, *(fitted.predict(frames, uncertainty=u) for u in ("total", ["energy", "forces"]))))
    (one, p, q), (two, r, s) = results  # rounding, times condition numbers of these few structures
    assert one == pytest.approx(two, rel=1e-9)
    for found, expected in ((p, r), (q, s)):
        np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found.energy_std, expected.energy_std, rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(q.forces), np.concatenate(s.forces), rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(q.forces_std), np.concatenate(s.forces_std), rtol=1e-6)
