"""Threads over blocks: order, exceptions, bounded work, BLAS threads restored."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import soapkrr
from soapkrr import backends
from soapkrr.execution.pools import Threads, tree
from soapkrr.lazy import cached_property
from soapkrr.regression.evaluate import block_size
from soapkrr.threads import _SerialBlas, default_threads, held_at_fork, one_thread, serial_blas, thread_map

THREADS = [1, 2, 5]


@pytest.fixture(autouse=True)
def two_blas_threads():
    """More than one, so that a limit of one and its end can be seen on any machine."""
    with threadpool_limits(2, user_api="blas"):
        yield


def _blas_threads():
    np.ones((4, 4)) @ np.ones((4, 4))
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("threads", [*THREADS, None])
def test_results_come_in_order(threads):
    gate = threading.Event()

    def work(k):
        # The first item waits for a later one where there is a second thread to run it; the order must hold all the same.
        gate.set() if k else gate.wait(0.2)
        return k * k

    assert list(thread_map(work, range(50), threads)) == [k * k for k in range(50)]


@pytest.mark.parametrize("threads", THREADS)
def test_nothing_to_do(threads):
    assert list(thread_map(abs, [], threads)) == []


@pytest.mark.parametrize("threads", THREADS)
def test_exceptions_reach_the_caller_and_threads_end(threads):
    def fail(k):
        raise KeyError(k) if k == 3 else StopAsyncIteration if k > 40 else ValueError(k)

    def work(k):
        return k if k < 3 else fail(k)

    before, limits, seen = threading.active_count(), _blas_threads(), []
    with pytest.raises(KeyError, match="3"):
        seen.extend(thread_map(work, range(20), threads))
    assert threading.active_count() == before
    assert _blas_threads() == limits


@pytest.mark.parametrize("threads", THREADS)
def test_work_is_taken_up_only_as_results_are_used(threads):
    taken = []

    def items():
        for k in range(1000):
            taken.append(k)
            yield k

    results = thread_map(abs, items(), threads)
    for _ in range(10):
        next(results)
    assert len(taken) <= 10 + threads + 1
    results.close()


@pytest.mark.parametrize("threads", THREADS)
def test_stopping_early_ends_the_threads_and_restores_blas(threads):
    before, limits = threading.active_count(), _blas_threads()
    results = thread_map(abs, range(100), threads)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert _blas_threads() == limits


@pytest.mark.parametrize("threads", THREADS)
def test_blocks_run_with_one_blas_thread(threads):
    limits = _blas_threads()
    inside = list(thread_map(lambda _: _blas_threads(), range(4), threads))
    assert inside == [[1] * len(limits)] * 4
    assert _blas_threads() == limits


def test_serial_blas_is_restored_after_an_exception():
    limits = _blas_threads()
    with pytest.raises(RuntimeError), serial_blas():
        assert _blas_threads() == [1] * len(limits)
        raise RuntimeError
    assert _blas_threads() == limits


def test_serial_blas_lasts_until_the_last_thread_leaves():
    limits, inside, go = _blas_threads(), threading.Barrier(2), threading.Event()

    def first():
        with serial_blas():
            inside.wait()

    def last():
        with serial_blas():
            inside.wait()
            one.join()
            seen.append(_blas_threads())
            go.set()

    seen, one, other = [], threading.Thread(target=first), threading.Thread(target=last)
    one.start()
    other.start()
    assert go.wait(10)
    other.join()
    assert seen == [[1] * len(limits)]
    assert _blas_threads() == limits


def test_one_thread_overrules_what_is_asked_for():
    def name(_):
        return threading.current_thread().name, tuple(_blas_threads())

    with one_thread():
        alone = set(thread_map(name, range(20), 5))
    assert alone == {(threading.current_thread().name, (1,) * len(_blas_threads()))}
    assert len({thread for thread, _ in thread_map(name, range(20), 5)}) > 1


def test_a_tree_merges_neighbours_and_holds_few():
    held = []

    def items():
        for letter in "abcdefg":
            held.append(letter)
            yield letter

    def merge(x, y):
        held.remove(x)
        held.remove(y)
        assert len(held) <= 3
        held.append(f"({x}{y})")
        return held[-1]

    assert tree(merge, items()) == "(((ab)(cd))((ef)g))"
    assert tree(merge, ["x"]) == "x"


@pytest.mark.parametrize("threads", THREADS)
def test_a_pool_of_threads_maps_and_reduces_in_order(threads):
    pool = Threads(threads)
    assert list(pool.map(pow, range(1, 6), pool.share(2))) == [2, 4, 8, 16, 32]
    assert pool.reduce(lambda add, s: s + add, lambda x, y: f"({x}{y})", "abc", "!") == "((a!b!)c!)"


def test_default_threads_is_a_positive_number():
    assert default_threads() >= 1


@pytest.mark.parametrize("n_species, n_features, most", [(1, 50, 128), (4, 50, 512), (4, 4096, 256), (10, 10**6, 128)])
def test_blocks_of_a_prediction_are_even_in_number_and_size(n_species, n_features, most):
    part = SimpleNamespace(descriptor=SimpleNamespace(n_features=n_features, n_kinds=n_species))
    for n_atoms in (*range(1, 1000, 37), most, most + 1, 10 * most):
        size = block_size([part], n_atoms, backends.loops(np))
        blocks = -(-n_atoms // size)
        assert size <= most
        assert blocks == (1 if n_atoms < 32 else 2) if n_atoms <= most else blocks % 2 == 0
        assert blocks * size - n_atoms < blocks


FORKS = """
import os, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
import soapkrr.threads
from small import crystals, small_gp

model, frames = small_gp(threads=2).fit(crystals(4)), crystals(3, seed=5)
expected = model.predict(frames, uncertainty=True)
children, inside = [], soapkrr.threads._SERIAL_BLAS
for k in range(3):
    # The unlucky moment, made sure of: another thread is half-way in.
    threading.Thread(target=lambda: (inside._lock.acquire(), time.sleep(0.3), inside._lock.release())).start()
    time.sleep(0.1)
    pid = os.fork()
    if not pid:
        p = model.predict(frames, uncertainty=True)
        os._exit(0 if np.array_equal(p.energy, expected.energy) and np.array_equal(p.forces_std[0], expected.forces_std[0]) else 1)
    children.append(pid)
deadline, left = time.monotonic() + 60, set(children)
codes = []
while left and time.monotonic() < deadline:
    for pid in list(left):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            left.discard(pid)
            codes.append(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
for pid in left:
    os.kill(pid, 9)
print(len(left), sorted(set(codes)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_children_of_a_fork_predict_whatever_other_threads_held():
    """A fork while another thread is on its way into a limit of BLAS threads: no child hangs, all have the same numbers."""
    code = FORKS.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[0] == "0 [0]", done.stdout + done.stderr


def test_a_child_starts_without_the_limits_of_threads_that_it_has_not():
    limit = _SerialBlas()
    limit.enter()
    limit.hold()  # as before a fork
    limit.start_afresh()
    assert _blas_threads() == _blas_threads_after(limit)


def _blas_threads_after(limit):
    with threadpool_limits(2, user_api="blas"):
        limit.enter()
        inside = _blas_threads()
        limit.leave()
        assert set(inside) == {1}
        return _blas_threads()


class Slow:
    """Has an attribute that takes as long to compute as an event is waited for."""

    def __init__(self, event=None):
        self.event, self.computed = event, threading.Event()

    @cached_property
    def value(self):
        self.computed.set()
        return object() if self.event is None else self.event.wait(20)


def test_threads_do_not_wait_for_attributes_of_other_objects():
    """Up to Python 3.11 `functools.cached_property` makes them."""
    go = threading.Event()
    slow, quick, done = Slow(go), Slow(), threading.Event()
    first = threading.Thread(target=lambda: slow.value)
    second = threading.Thread(target=lambda: (quick.value, done.set()))
    first.start()
    assert slow.computed.wait(20)
    second.start()
    assert done.wait(20)
    go.set()
    first.join()
    assert slow.value is True and quick.value is quick.value and isinstance(Slow.value, cached_property)


def test_the_package_has_no_other_cached_attributes():
    root = Path(soapkrr.__file__).parent
    assert [path for path in root.rglob("*.py") if path.name != "lazy.py" and "functools import cached_property" in path.read_text()] == []


def forked(function) -> int:
    """Exit code of a child that calls a function; -9 where it had to be ended after 20 s."""
    pid = os.fork()
    if not pid:
        function()
        os._exit(0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 and later: of forks where there are threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_children_do_not_wait_for_attributes_that_other_threads_compute():
    go = threading.Event()
    slow = Slow(go)
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert slow.computed.wait(20)
    assert forked(lambda: Slow().value) == 0
    go.set()
    thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("which", ["a new one", "numba's", "DScribe's"])
def test_a_fork_waits_for_locks_that_guard_state(which):
    from numba.core.compiler_lock import global_compiler_lock

    from soapkrr.backends.cpu import compile  # noqa: F401  held from here on
    from soapkrr.descriptors import dscribe

    lock = {"a new one": held_at_fork(threading.Lock()), "numba's": global_compiler_lock, "DScribe's": dscribe._LOCK}[which]
    taken = threading.Event()
    thread = threading.Thread(target=lambda: (lock.acquire(), taken.set(), time.sleep(0.2), lock.release()))
    thread.start()
    assert taken.wait(20)
    assert forked(lambda: (lock.acquire(), lock.release())) == 0
    thread.join()
    lock.acquire()
    lock.release()
