"""What a fit or a prediction may use: a pool, a library of arrays, the division of the work, and whether it shows its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from soapkrr import backends
from soapkrr.execution.pools import Threads
from soapkrr.execution.workers import Workers
from soapkrr.threads import default_threads

#: Atoms predicted at once: bounds the memory of lists of small structures. Of a task on a worker, which has one thread, fewer.
GROUP, TASK = 4096, 512

#: Features held at once for a descriptor to learn from, bytes; more data are thinned out evenly.
LEARNING_BYTES = 2**29


@dataclass(frozen=True)
class Division:
    """How work is cut into parts; `unlimited` where memory is no matter.

    Attributes
    ----------
    threads : threads of this process.  fillers : those of them that compute features which are all kept.
    group : atoms whose rows a thread makes at once, or which are predicted at once.
    chunk : atoms at least whose rows are absorbed by one triangle.
    candidates, learning : bytes for the features among which sparse points are chosen, and from which descriptors learn.
    elements : kernel values between atoms that a thread holds at once.
    concurrent : whether stages that do not need each other may run at the same time.
    """

    threads: int
    fillers: int
    group: int
    chunk: int = 0
    candidates: float = inf
    learning: float = LEARNING_BYTES
    elements: int = 4_000_000
    concurrent: bool = True

    @classmethod
    def unlimited(cls, xp, threads: int | None, group: int | None = None) -> Division:
        """The division for arrays of ``xp`` and so many threads (None: every core) without a limit of memory."""
        threads = backends.threads(xp, threads or default_threads())
        return cls(threads, threads, group or backends.loops(xp).GROUP, learning=LEARNING_BYTES)


@dataclass(frozen=True)
class Resources:
    """Where and how work is done.

    Attributes
    ----------
    pool : `Threads` of this process or `Workers` of a client, on which groups of structures are worked on.
    device : ``"cpu"``, ``"cuda"`` or ``"auto"``: what threads and workers compute with.
    division : how the work is cut into parts.  progress : whether bars are drawn.
    """

    pool: Threads | Workers
    device: str
    division: Division
    progress: bool = False

    @property
    def xp(self):
        """The library of this process's arrays: beside workers, NumPy."""
        return np if self.pool.remote else backends.library(self.device)

    @property
    def threads(self) -> int:
        """Threads of this process."""
        return self.division.threads

    @property
    def filling(self) -> Resources:
        """The same for computing features that are all kept: on fewer threads where memory is scarce."""
        return self if self.pool.remote else replace(self, pool=Threads(self.division.fillers))

    def map(self, function: Callable, items: Iterable, *common, label: str = "") -> Iterator:
        """Yield ``function(*common, item)`` in order, from the pool."""
        return self.pool.map(function, items, *common, label=label, progress=self.progress)

    def reduce(self, function: Callable, merge: Callable, items: Iterable, *common, label: str = ""):
        """``function(*common, item)`` of all items, merged by a tree."""
        return self.pool.reduce(function, merge, items, *common, label=label, progress=self.progress)


def pool_of(client, threads: int | None) -> Threads | Workers:
    """`Threads` of this process, or the `Workers` of a ``client``."""
    return Threads(threads) if client is None else Workers(client)
