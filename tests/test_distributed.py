"""dask.distributed: the numbers of one process from several, whatever happens to the workers."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from dask.distributed import Client, LocalCluster
from small import crystals, small_gp, soap
from systems import small_soap, species, variations
from threadpoolctl import threadpool_info, threadpool_limits

import soapkrr
from soapkrr import (
    ACSF,
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    Linear,
    Pair,
    SparseGP,
    SquaredExponential,
    Stratified,
    Term,
)
from soapkrr.execution import workers
from soapkrr.execution.pools import Threads
from soapkrr.execution.workers import Workers
from soapkrr.regression.sparse import points, triangles
from soapkrr.selection import chunked
from soapkrr.selection.chunked import farthest_points
from soapkrr.selection.methods import farthest_point_sampling

#: Largest difference from one process: eV, eV/Å, eV/Å³.
TOLERANCE = 1e-9

QUANTITIES = ("energy", "energies", "forces", "stress", "energy_std", "energies_std", "forces_std", "stress_std")


@pytest.fixture(scope="module")
def client():
    """Two workers of one thread, each a process that is started again when it is lost."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def frames():
    """Enough atoms for two tasks of a prediction and five of a fit: 600."""
    return crystals(150)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    """Few atoms in a task of a fit, so that there are several."""
    monkeypatch.setattr(triangles, "CHUNK", 128)
    monkeypatch.setattr(points, "CHUNK", 100)


def _flat(value) -> np.ndarray:
    return np.concatenate([np.ravel(v) for v in value])


def same_predictions(one, other):
    for name in QUANTITIES:
        np.testing.assert_allclose(_flat(getattr(one, name)), _flat(getattr(other, name)), rtol=0, atol=TOLERANCE, err_msg=name)


def same_models(one: SparseGP, other: SparseGP, frames):
    """The same sparse points, rows, hyperparameters and predictions."""
    for a, b in zip(one.process_.terms, other.process_.terms, strict=True):
        for x, y in zip(a.points, b.points, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-14)
    assert one.n_observations_ == other.n_observations_
    assert one.noise_ == pytest.approx(other.noise_, rel=1e-9)
    assert one.log_likelihood_ == pytest.approx(other.log_likelihood_, abs=1e-6)
    same_predictions(one.predict(frames, uncertainty=True), other.predict(frames, uncertainty=True))


def alloys():
    return variations("alloy", 60)


def _terms():
    return Term(Pair(["Ar"], r_cut=4.5), Linear()) + Term(soap(), DotProduct(zeta=2), n_sparse=20)


def _acsf():
    return ACSF.layout(["Sr", "Ti", "O"], r_cut=4.0, n_radial=3, n_angular=2)


CASES = {
    "fps": (crystals, lambda: small_gp(n_sparse=40), {}),
    "evidence": (crystals, lambda: small_gp(n_sparse=40), {"optimize": True}),
    "cross-validation": (crystals, lambda: small_gp(n_sparse=20), {"optimize": "cross-validation"}),
    "sum of terms": (crystals, lambda: SparseGP(_terms()), {}),
    "cur": (crystals, lambda: small_gp(n_sparse=15, selection="cur"), {}),
    "stratified": (crystals, lambda: small_gp(n_sparse=15, selection=Stratified(by="config_type")), {}),
    "several species": (alloys, lambda: SparseGP(small_soap(species("alloy")), DotProduct(zeta=2), n_sparse=40), {}),
    "descriptor that learns": (alloys, lambda: SparseGP(_acsf(), SquaredExponential(length_scale=5.0), n_sparse=30), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fit_equals_that_of_one_process(client, case):
    build, model, options = CASES[case]
    data = build() if build is alloys else build(150)
    for k, atoms in enumerate(data):
        atoms.info["config_type"] = ["a", "b"][k % 2]
    same_models(model().fit(data, **options), model().fit(data, client=client, **options), data[:3])


def test_predictions_equal_those_of_one_process(client, frames):
    model = small_gp(n_sparse=40).fit(frames)
    same_predictions(model.predict(frames, uncertainty=True), model.predict(frames, uncertainty=True, client=client))
    assert model.predict(frames, client=client).energy_std is None


@pytest.mark.parametrize(
    "model",
    [
        lambda: GaussianProcess(soap(), DotProduct(zeta=2)),
        lambda: KernelRidge(soap(), DotProduct(zeta=2)),
        lambda: small_gp(representers="observations"),
    ],
    ids=["exact", "ridge", "observations"],
)
def test_every_potential_predicts_on_workers(client, frames, model):
    fitted = model().fit(frames[:4])
    same_predictions(fitted.predict(frames[:140], uncertainty=True), fitted.predict(frames[:140], uncertainty=True, client=client))


@pytest.mark.parametrize("by", ["structure", "config_type"])
def test_labels_left_out_on_workers_equal_those_of_one_process(client, frames, by):
    """Structures one by one; and two together beside all others, which have more labels than there are sparse points."""
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = "few" if k < 2 else "many"
    model = small_gp(n_sparse=40).fit(frames)
    here, there = model.leave_out(frames, by), model.leave_out(frames, by, client=client)
    for name in ("mean", "variance", "fitted"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-10, atol=1e-10, err_msg=name)
    assert len(here) == 150 * (1 + 12 + 6) and there.names == here.names


def test_a_calibration_on_workers_is_that_of_one_process(client, frames):
    model = small_gp(n_sparse=40).fit(frames[:30])
    here = model.calibrate(frames[:30]).predict(frames[:2], uncertainty=True)
    same_predictions(here, model.calibrate(frames[:30], client=client).predict(frames[:2], uncertainty=True))


@pytest.mark.parametrize(
    "model", [lambda: GaussianProcess(soap(), DotProduct(zeta=2)), lambda: small_gp(memory_limit="2GB")], ids=["exact", "limited"]
)
def test_labels_left_out_take_no_workers_where_a_fit_takes_none(client, frames, model):
    fitted = model().fit(frames[:5])
    with pytest.raises(InputError, match="`client`|`memory_limit`"):
        fitted.leave_out(frames[:5], client=client)


# --- workers that are lost ---


def test_workers_make_named_prior_means_themselves(client, frames, tmp_path):
    """One of ASE's by its name, and one that only this process has registered; also from a file."""
    soapkrr.baselines.register("argon-on-workers", lambda: LennardJones(sigma=3.0, epsilon=0.01, rc=6.0, smooth=True))
    baseline = [soapkrr.baselines.ScaledBaseline("argon-on-workers", 0.9), "zbl"]
    model = small_gp(n_sparse=40, baseline=baseline, threads=1).fit(frames, client=client)
    same_models(small_gp(n_sparse=40, baseline=baseline, threads=1).fit(frames), model, frames[:3])
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    same_predictions(model.predict(frames, uncertainty=True), loaded.predict(frames, uncertainty=True, client=client))


def kill(client, count: int) -> None:
    """End processes of workers at once, as a machine that fails does."""
    for pid in list(client.run(os.getpid).values())[:count]:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def two_workers(client):
    """The client, once both workers are there, after a test that killed one too; a busy machine may have failed to start them again."""
    try:
        client.wait_for_workers(2, timeout=30)
    except TimeoutError:
        for n in (0, 2):
            client.cluster.scale(n)
            client.sync(client.cluster._correct_state)
        client.wait_for_workers(2, timeout=90)
    return client


@pytest.mark.parametrize("lost", [1, 2], ids=["one", "all"])
def test_a_fit_survives_the_loss_of_workers(two_workers, frames, monkeypatch, tmp_path, lost):
    log, original, track = tmp_path / "log", triangles._chunk_on, workers.track

    def slow_chunk(*arguments):
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.15)
        return original(*arguments)

    def fatal_track(items, total, label, show):
        for count, item in enumerate(track(items, total, label, show), start=1):
            if label == "design rows" and count == 2:
                kill(two_workers, lost)
            yield item

    reference = small_gp(n_sparse=40).fit(frames)
    before = set(two_workers.run(os.getpid).values())
    monkeypatch.setattr(triangles, "_chunk_on", slow_chunk)
    monkeypatch.setattr(workers, "track", fatal_track)
    model = small_gp(n_sparse=40).fit(frames, client=two_workers)
    pids = set(map(int, log.read_text().split()))
    assert pids & before
    assert pids - before or lost == 1, "where all are lost, all rows are made again by others"
    same_models(reference, model, frames[:3])


def test_the_choice_of_sparse_points_survives_the_loss_of_a_worker(two_workers, monkeypatch):
    monkeypatch.setattr(chunked, "TOLD", 1)
    X = np.random.default_rng(0).normal(size=(400, 6))
    pool = Workers(two_workers)
    chunks = [pool.submit(np.array, x) for x in np.split(X, 4)]
    found = []
    for k, (index, _) in enumerate(farthest_points(pool, chunks, [100] * 4, 60)):
        found.append(index)
        if k == 20:
            kill(two_workers, 1)
    np.testing.assert_array_equal(found, farthest_point_sampling(X, 60))


def test_predictions_survive_the_loss_of_a_worker(two_workers):
    pool = Workers(two_workers)

    def slow(factor, item):
        time.sleep(0.02)
        return factor * item

    results = pool.map(slow, range(40), pool.share(3))
    first = [next(results) for _ in range(3)]
    kill(two_workers, 1)
    assert first + list(results) == [3 * k for k in range(40)]


# --- farthest points of chunks, whatever holds them ---


class Here:
    """A pool of this process that counts rounds."""

    def __init__(self):
        self.rounds = 0

    def submit(self, function, *arguments):
        return function(*arguments)

    def gather(self, results):
        self.rounds += 1
        return results


def _rows(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    if kind == "lattice":  # every gap occurs many times
        return np.array(np.meshgrid(*[range(6)] * 3)).reshape(3, -1).T.astype(float)
    if kind == "copies":
        return np.repeat(rng.normal(size=(40, 5)), 9, axis=0)[rng.permutation(360)]
    if kind == "near copies":
        return np.repeat(rng.normal(size=(40, 5)), 9, axis=0)[rng.permutation(360)] + 1e-13 * rng.normal(size=(360, 5))
    return rng.normal(size=(1500, 12))


@pytest.mark.parametrize("told", [1, 200, 4096])
@pytest.mark.parametrize("kind", ["random", "lattice", "copies", "near copies"])
def test_farthest_points_of_chunks_are_those_of_all_rows(monkeypatch, kind, told):
    monkeypatch.setattr(chunked, "TOLD", told)
    monkeypatch.setattr(chunked, "TOLD_AT_LEAST", 1)
    X, n, pool = _rows(kind), 60, Here()
    cuts = np.sort(np.random.default_rng(2).choice(len(X) - 1, size=6, replace=False)) + 1
    chunks = np.split(X, cuts)
    found = list(farthest_points(pool, chunks, list(map(len, chunks)), n))
    indices = [index for index, _ in found]
    np.testing.assert_array_equal(indices, farthest_point_sampling(X, n))
    np.testing.assert_array_equal([row for _, row in found], X[indices])
    assert pool.rounds < len(found) + 2


def test_one_farthest_point():
    assert [index for index, _ in farthest_points(Here(), [np.eye(3), 9 * np.eye(3)], [3, 3], 1)] == [3]


# --- errors, threads, bars ---


def test_errors_name_the_first_bad_structure_as_one_process_does(client, frames):
    model, bad = small_gp().fit(frames[:5]), [atoms.copy() for atoms in frames]
    for k in (135, 149):
        bad[k].positions[1] = bad[k].positions[2]
    with pytest.raises(InputError, match="frame 135: atoms 1 and 2 coincide") as here:
        model.predict(bad)
    with pytest.raises(InputError) as there:
        model.predict(bad, client=client)
    assert str(there.value) == str(here.value)


def test_errors_in_the_rows_of_a_fit_reach_the_caller(client, frames, monkeypatch):
    def fail(*arguments):
        raise InputError("not these")

    monkeypatch.setattr(triangles, "_chunk_on", fail)
    model = small_gp(n_sparse=20)
    with pytest.raises(InputError, match="not these"):
        model.fit(frames, client=client)
    assert not hasattr(model, "process_")


def test_what_structures_carry_stays_at_home(client, frames):
    model = small_gp().fit(frames[:5])
    atoms = frames[7].copy()
    atoms.calc = atoms.info["lock"] = threading.Lock()  # cannot be sent
    assert model.predict([atoms], client=client).energy[0] == pytest.approx(model.predict(frames[7]).energy[0], abs=TOLERANCE)


def test_bad_clients(monkeypatch, client, frames):
    for bad in ("tcp://localhost:8786", 4, client.cluster):
        with pytest.raises(InputError, match="`client` must be"):
            small_gp().fit(frames, client=bad)

    async def asynchronous():
        async with Client(client.scheduler.address, asynchronous=True) as other:
            with pytest.raises(InputError, match="not asynchronous"):
                small_gp().fit(frames, client=other)

    asyncio.run(asynchronous())
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(InputError, match=r'pip install "soapkrr\[distributed\]"'):
        small_gp().fit(frames, client=client)


def test_what_is_fitted_in_one_process_refuses_a_client(client, frames):
    for model in (GaussianProcess(soap(), DotProduct()), KernelRidge(soap(), DotProduct()), small_gp(representers="observations")):
        with pytest.raises(InputError, match="`client`.*one process"):
            model.fit(frames, client=client)


def test_the_package_does_not_import_dask():
    code = "import sys, soapkrr, soapkrr.execution.workers; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _blas_threads(*_):
    np.ones((4, 4)) @ np.ones((4, 4))
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def _allow_two_blas_threads():
    threadpool_limits(2, user_api="blas")


def test_a_task_has_one_thread(client):
    client.run(_allow_two_blas_threads)
    pool = Workers(client)
    assert {n for counts in pool.map(_blas_threads, range(4)) for n in counts} == {1}
    assert {n for counts in client.run(_blas_threads).values() for n in counts} == {2}

    def names(_):
        return {threading.current_thread().name, *Threads(4).map(lambda _: threading.current_thread().name, range(8))}

    assert len(list(pool.map(names, [0]))[0]) == 1


def test_bars_count_groups(client, frames, monkeypatch):
    bars = {}

    def counted(items, total, label, show):
        for item in items:
            bars[label, total, show] = bars.get((label, total, show), 0) + 1
            yield item

    monkeypatch.setattr(workers, "track", counted)
    small_gp(n_sparse=20, selection="random").fit(frames, client=client, progress=True)
    bars = {key: n for key, n in bars.items() if key[2]}  # those that are shown
    assert bars == {("environments", 2, True): 2, ("design rows", 6, True): 6}


def test_troubles_of_the_workers_are_named(client, frames, monkeypatch, caplog):
    pool = Workers(client)
    assert pool.trouble() is None
    told = {"workers": {}}
    monkeypatch.setattr(client, "scheduler_info", lambda n_workers: told)
    assert "no worker is connected" in pool.trouble()
    told["workers"] = {"tcp://a:1": {"status": "paused"}, "tcp://b:2": {"status": "running"}}
    assert "1 of 2 workers are paused, short of memory (tcp://a:1)" in pool.trouble()
    monkeypatch.setattr(workers, "PATIENCE", 0.01)
    small_gp(n_sparse=20).fit(frames, client=client)
    assert "short of memory" in caplog.text


def test_a_wait_without_workers_says_so(monkeypatch, caplog):
    """A scheduler that nobody works for: the warning comes while the call still waits; with a worker, it ends."""
    monkeypatch.setattr(workers, "PATIENCE", 0.3)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as cluster, Client(cluster) as client:
        model, one = small_gp().fit(crystals(3)), crystals(1, seed=4)
        found = []
        thread = threading.Thread(target=lambda: found.append(model.predict(one, client=client)))
        thread.start()
        until = time.monotonic() + 30
        while "no worker is connected" not in caplog.text and time.monotonic() < until:
            time.sleep(0.05)
        assert "no worker is connected" in caplog.text and not found
        cluster.scale(1)
        thread.join(60)
        assert found[0].energy == pytest.approx(model.predict(one).energy, abs=TOLERANCE)
