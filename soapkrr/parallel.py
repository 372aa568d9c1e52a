"""Threads over independent blocks: each block runs on one thread with one BLAS thread, so the two never fight.

Results come back in order and never depend on the number of threads, because the blocks do not.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController

from soapkrr import backends
from soapkrr.errors import InputError


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@contextmanager
def serial_blas() -> Iterator[None]:
    """One BLAS thread inside: LAPACK panels on two threads of a busy machine can be 70 times slower than on one."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


def thread_map(function: Callable, items: Iterable, threads: int | None = None) -> Iterator:
    """Yield ``function(item)`` in order, at most ``threads`` at a time and ``threads`` results waiting."""
    threads = threads or default_threads()
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


def halving(function: Callable, item, halves: Callable) -> list:
    """``[function(item)]``, or, where a GPU's memory runs out, the results of ``halves(item)`` in order, halved again where needed.

    Whatever ran out of memory is repeated from its start, so ``function`` must write its results, not add to what was there.
    """
    try:
        return [function(item)]
    except backends.out_of_memory():
        pass  # outside of this clause nothing refers to the arrays of the failed attempt any more
    backends.free_memory()
    return [result for half in halves(item) for result in halving(function, half, halves)]


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

    for parts in thread_map(lambda bounds: halving(one, bounds, halves), blocks(), threads):
        yield from parts
