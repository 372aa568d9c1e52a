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
