"""Consecutive blocks of work, cut in half where the memory of a GPU does not hold one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ase import Atoms

from soapkrr import backends
from soapkrr.errors import MemoryLimitError
from soapkrr.threads import thread_map


def split_on_out_of_memory(function: Callable, item, halves: Callable) -> Iterator:
    """Yield ``function(item)``, or, where a GPU's memory runs out, the results of ``halves(item)`` in order, split again where needed.

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
        yield from split_on_out_of_memory(function, half, halves)


def block_map(function: Callable, n: int, block: int, threads: int | None = None) -> Iterator[tuple]:
    """Yield ``(start, stop, function(start, stop))`` of consecutive blocks of ``range(n)``, in order, by `thread_map`.

    A block that does not fit into a GPU's memory is repeated in halves, and the blocks after it are as small.

    Raises
    ------
    MemoryLimitError : a block of one does not fit either.
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
            raise MemoryLimitError(
                f"the memory of the GPU does not hold the work for one atom ({start}); use smaller structures or a smaller model."
            )
        middle = (start + stop) // 2
        size = min(size, middle - start)
        return (start, middle), (middle, stop)

    def one(bounds):
        return (*bounds, function(*bounds))

    for parts in thread_map(lambda bounds: list(split_on_out_of_memory(one, bounds, halves)), blocks(), threads):
        yield from parts


def halved_group(group: tuple[int, list[Atoms]], work: str, instead: str) -> tuple:
    """Two groups of structures in place of (index of the first, structures), whose ``work`` a GPU's memory does not hold.

    Raises
    ------
    MemoryLimitError : it is one structure.
    """
    first, frames = group
    if len(frames) < 2:
        raise MemoryLimitError(f"frame {first}: the memory of the GPU does not hold the {work} of its {len(frames[0])} atoms; {instead}.")
    middle = len(frames) // 2
    return (first, frames[:middle]), (first + middle, frames[middle:])
