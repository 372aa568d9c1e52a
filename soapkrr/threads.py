"""Threads over independent items: each runs on one thread with one BLAS thread, so the two never fight.

Results come back in order and never depend on the number of threads, because the items do not.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from numbers import Integral
from threading import Lock

import scipy.linalg  # noqa: F401  loads its own BLAS, which the controller below would not find later
import threadpoolctl

from soapkrr.errors import InputError


@lru_cache(maxsize=1)
def _controller() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def held_at_fork(lock):
    """The lock, for which a fork waits: children find it open, and what it guards whole."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class _SerialBlas:
    """The limit of one BLAS thread: set by the first who enters, lifted by the last who leaves, from whatever threads."""

    def __init__(self):
        self._lock, self._inside, self._limit = Lock(), 0, None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                with _any_thread_may_set():
                    self._limit = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def hold(self) -> None:
        """Before a fork: nobody may be half-way in or out."""
        self._lock.acquire()

    def release(self) -> None:
        """In the parent, after a fork."""
        self._lock.release()

    def start_afresh(self) -> None:
        """In the child of a fork, where none of the threads that were inside exist."""
        if self._inside:
            with _any_thread_may_set():
                self._limit.restore_original_limits()
        self._lock, self._inside = Lock(), 0

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                with _any_thread_may_set():
                    self._limit.restore_original_limits()


@contextmanager
def _any_thread_may_set() -> Iterator[None]:
    """threadpoolctl from 3.8 on ignores limits that a thread sets on OpenBLAS after another has; the limit is one of the process."""
    let_go = getattr(getattr(threadpoolctl, "OpenBLASController", None), "clear_controlling_thread", lambda force: None)
    let_go(force=True)
    yield
    let_go(force=True)


_SERIAL_BLAS = _SerialBlas()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_SERIAL_BLAS.hold, after_in_parent=_SERIAL_BLAS.release, after_in_child=_SERIAL_BLAS.start_afresh)

#: Whether the code that runs is one of several tasks of this process and has a single thread to itself.
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def serial_blas() -> Iterator[None]:
    """One BLAS thread inside: LAPACK panels on two threads of a busy machine can be 70 times slower than on one."""
    _SERIAL_BLAS.enter()
    try:
        yield
    finally:
        _SERIAL_BLAS.leave()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, of BLAS too, whatever number `thread_map` is asked for: what a task beside other tasks may use."""
    token = _ALONE.set(True)
    try:
        with serial_blas():
            yield
    finally:
        _ALONE.reset(token)


def threads_for(threads: int | None) -> int:
    """How many may be used where ``threads`` are asked for, None for every core: one for a task beside other tasks."""
    if threads is not None and not (isinstance(threads, Integral) and threads >= 0):
        raise InputError(f"`threads` must be a positive integer, or None for every core, received {threads!r}.")
    return 1 if _ALONE.get() else threads or default_threads()


def thread_map(function: Callable, items: Iterable, threads: int | None = None) -> Iterator:
    """Yield ``function(item)`` in order, at most ``threads`` at a time and ``threads`` results waiting."""
    threads = threads_for(threads)
    with serial_blas():
        if threads == 1:
            yield from map(function, items)
            return
        pool, pending = ThreadPoolExecutor(threads - 1), deque()

        def next_result():
            # The thread that asks works too: it takes the item that it would wait for, unless another has begun.
            future, item = pending.popleft()
            return function(item) if future.cancel() else future.result()

        try:
            for item in items:
                pending.append((pool.submit(function, item), item))
                if len(pending) > threads:
                    yield next_result()
            while pending:
                yield next_result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
