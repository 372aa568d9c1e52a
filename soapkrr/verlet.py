"""Verlet list: neighbours within a cutoff and a skin, found once and used for as long as no atom can have come in from beyond.

Source: Verlet 1967, doi 10.1103/PhysRev.159.98.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from soapkrr import backends

#: Å by which lists reach beyond the cutoff.
SKIN = 0.6


class _Seen(NamedTuple):
    """A structure, the reach (Å) of its list, and the list: (offsets, j, r_ij); no list and no reach where none was kept."""

    points: np.ndarray
    box: np.ndarray
    periodic: np.ndarray
    reach: float
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    def moved(self, points, box, periodic) -> float:
        """How far an atom has moved since, at most; infinite where the cell, its periodic directions or the number of atoms changed."""
        same = points.shape == self.points.shape and np.array_equal(box, self.box) and np.array_equal(periodic, self.periodic)
        return float(np.sqrt(np.square(points - self.points).sum(axis=1).max(initial=0.0))) if same else np.inf


class VerletList:
    """`neighbours` of the CPU for structures that come one after the other, as in dynamics and relaxations, by the same arguments.

    A list that reaches ``skin`` farther than the cutoff holds all pairs until an atom has moved by half of it. Distances are computed
    anew, and pairs beyond the cutoff dropped: results are those of a search, but for the order and the last digit. A structure that
    differs from the one before by more, or in its cell, is searched without a skin. Each thread has lists of its own.
    """

    def __init__(self, skin: float = SKIN):
        self.skin, self._own = skin, threading.local()

    @property
    def searches(self) -> int:
        """Searches of the thread that asks."""
        return getattr(self._own, "searches", 0)

    @property
    def kept(self) -> _Seen | None:
        """The list that the thread keeps."""
        return getattr(self._own, "kept", None)

    def __call__(self, points: np.ndarray, box: np.ndarray, periodic: np.ndarray, cutoff: float):
        """(offsets, j, r_ij) of all pairs nearer than ``cutoff``, as `soapkrr.backends.cpu.neighbours.neighbours` gives them."""
        kept, last, loops = self.kept, getattr(self._own, "last", None), backends.loops(np).neighbours
        if kept is None or not kept.reach - cutoff > 2 * kept.moved(points, box, periodic):
            here = _Seen(points.copy(), box.copy(), periodic.copy(), 0.0, None)
            self._own.last, self._own.searches = here, self.searches + 1
            if last is None or not self.skin > 4 * last.moved(points, box, periodic):
                self._own.kept = None
                return loops.neighbours(points, box, periodic, cutoff)
            reach = cutoff + self.skin
            kept = self._own.kept = here._replace(reach=reach, pairs=loops.neighbours(points, box, periodic, reach))
        return loops.of_moved(*kept.pairs, points - kept.points, cutoff)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Batches of structures ask this list inside."""
        token = IN_USE.set(self)
        try:
            yield
        finally:
            IN_USE.reset(token)

    def __reduce__(self):
        """Without lists."""
        return VerletList, (self.skin,)


#: The list that searches for pairs on the CPU go through, None: each is by itself.
IN_USE: ContextVar[VerletList | None] = ContextVar("verlet_list", default=None)
