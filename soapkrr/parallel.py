"""Threads over independent blocks: each block runs on one thread with one BLAS thread, so the two never fight.

Results come back in order and never depend on the number of threads, because the blocks do not.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from threading import Lock

import scipy.linalg  # noqa: F401  loads its own BLAS, which the controller below would not find later
import threadpoolctl

from soapkrr import backends
from soapkrr.errors import InputError
from soapkrr.progress import track


@lru_cache(maxsize=1)
def _controller() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


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


def thread_map(function: Callable, items: Iterable, threads: int | None = None) -> Iterator:
    """Yield ``function(item)`` in order, at most ``threads`` at a time and ``threads`` results waiting."""
    threads = 1 if _ALONE.get() else threads or default_threads()
    with serial_blas():
        if threads == 1:
            yield from map(function, items)
            return
        pool, pending = ThreadPoolExecutor(threads), deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def halving(function: Callable, item, halves: Callable) -> Iterator:
    """Yield ``function(item)``, or, where a GPU's memory runs out, the results of ``halves(item)`` in order, halved again where needed.

    Whatever ran out of memory is repeated from its start, so ``function`` must write its results, not add to what was there.
    """
    try:
        result = function(item)
    except backends.out_of_memory():
        pass  # outside of this clause nothing refers to the arrays of the failed attempt any more
    else:
        yield result
        return
    backends.free_memory()
    for half in halves(item):
        yield from halving(function, half, halves)


def block_map(function: Callable, n: int, block: int, threads: int | None = None) -> Iterator[tuple]:
    """Yield ``(start, stop, function(start, stop))`` of consecutive blocks of ``range(n)``, in order, by `thread_map`.

    A block that does not fit into a GPU's memory is repeated in halves, and the blocks after it are as small.

    Raises
    ------
    InputError : a block of one does not fit either.
    """
    size = block

    def blocks():
        start = 0
        while start < n:
            stop = min(start + size, n)
            yield start, stop
            start = stop

    def halves(bounds):
        nonlocal size
        start, stop = bounds
        if stop - start < 2:
            raise InputError(
                f"the memory of the GPU does not hold the work for one atom ({start}); use smaller structures or a smaller model."
            )
        middle = (start + stop) // 2
        size = min(size, middle - start)
        return (start, middle), (middle, stop)

    def one(bounds):
        return (*bounds, function(*bounds))

    for parts in thread_map(lambda bounds: list(halving(one, bounds, halves)), blocks(), threads):
        yield from parts


@contextmanager
def meanwhile(function: Callable, beside: bool) -> Iterator[Callable]:
    """A callable that gives ``function()``: made on a thread of its own while the block runs, or before it if not ``beside``."""
    if not beside:
        result = function()
        yield lambda: result
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function).result


def tree(merge: Callable, items: Iterable):
    """The items merged pairwise, neighbours first; the shape depends on their number alone, and ⌈log₂ n⌉ + 1 are held at most."""
    stack: list = []
    for count, item in enumerate(items, start=1):
        stack.append(item)
        while count % 2 == 0:
            stack[-2:] = [merge(*stack[-2:])]
            count //= 2
    while len(stack) > 1:
        stack[-2:] = [merge(*stack[-2:])]
    return stack[0]


class Threads:
    """Where groups of structures are worked on: threads of this process. `distributed.Workers` has the same methods.

    Parameters
    ----------
    threads : None takes every core this process may use.
    """

    #: Whether what is made stays elsewhere unless it is asked for.
    remote = False

    def __init__(self, threads: int | None = None):
        self.threads = threads

    def frames(self, frames: list) -> list:
        """The structures as tasks get them."""
        return frames

    def share(self, value):
        """What a function is given in place of a value that many tasks need."""
        return value

    def map(self, function: Callable, items: Iterable, *common, label: str = "", progress: bool = False) -> Iterator:
        """Yield ``function(*common, item)`` in order."""
        items = list(items)
        return track(thread_map(partial(function, *common), items, self.threads), len(items), label, progress)

    def reduce(self, function: Callable, merge: Callable, items: Iterable, *common, label: str = "", progress: bool = False):
        """``function(*common, item)`` of all items, merged by a `tree`."""
        return tree(merge, self.map(function, items, *common, label=label, progress=progress))


def pool_of(client, threads: int | None):
    """`Threads` of this process, or the `distributed.Workers` of a ``client``."""
    if client is None:
        return Threads(threads)
    from soapkrr.distributed import Workers

    return Workers(client)
