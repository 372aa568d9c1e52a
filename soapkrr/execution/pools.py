"""Threads of this process as a pool of work, and how results are merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from soapkrr.progress import track
from soapkrr.threads import thread_map


@contextmanager
def meanwhile(function: Callable, concurrent: bool) -> Iterator[Callable]:
    """A callable that gives ``function()``: made on a thread of its own while the block runs, or before it if not ``concurrent``."""
    if not concurrent:
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
    """Threads of this process on which groups of structures are worked on. `workers.Workers` has the same methods.

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
