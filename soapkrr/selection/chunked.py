"""Farthest-point sampling of rows that lie in chunks on other machines: the picks of `methods.farthest_point_sampling`, exactly.

Each chunk keeps the squared gap of every row to its nearest pick, and tells its farthest rows and the gap of the next one, the bound.
Gaps only ever fall, so as long as the farthest of all rows told is no nearer than every bound, it is the farthest row of all. The picks
found so go back to the chunks, and the next round begins. No rows travel but those told, and the picks.

``pool`` has ``submit(function, *arguments)`` and ``gather(results)``, as `execution.workers.Workers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from soapkrr import backends

#: Rows that the chunks tell in a round, all together; each tells `TOLD_AT_LEAST`.
TOLD, TOLD_AT_LEAST = 4096, 16

#: Squared gap below which a row is a copy of a pick, as in `backends.cpu.regression.farthest_points`.
COPY = 1e-20


class Gaps(NamedTuple):
    """Number of each row's nearest pick, and its squared gap to it."""

    nearest: np.ndarray
    best: np.ndarray


class Told(NamedTuple):
    """The farthest rows of a chunk in ascending order, their gaps, and place and squared gap of the next (gap −1: none is left)."""

    rows: np.ndarray
    X: np.ndarray
    gaps: Gaps
    next_row: int
    next_gap: float


def farthest_points(pool, chunks: list, sizes: list[int], n: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, row) of up to ``n`` rows, each farthest from those picked before; the first is farthest from the mean.

    Parameters
    ----------
    chunks : results of ``pool``, each (size, n_features), which one after the other are the rows.  sizes : rows of each, at least one.
    """
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    index, row = _farthest_from_mean(pool, chunks, firsts, sum(sizes))
    yield index, row
    picks = np.empty((n, len(row)))
    picks[0], sent, known = row, 0, 1
    gaps, remote = [pool.submit(_untouched, size) for size in sizes], None
    told_each = max(TOLD_AT_LEAST, TOLD // len(chunks))
    while sent < known < n:
        remote = pool.submit(_joined, remote, picks[sent:known])
        gaps = [pool.submit(_lowered, x, old, remote, sent) for x, old in zip(chunks, gaps, strict=True)]
        told = pool.gather([pool.submit(_farthest, x, gap, told_each) for x, gap in zip(chunks, gaps, strict=True)])
        sent = known
        for index in _certain(told, firsts, picks, known):
            known += 1
            yield index, picks[known - 1]


def _certain(told: list[Told], firsts: np.ndarray, picks: np.ndarray, known: int) -> Iterator[int]:
    """Indices of the picks that follow from the rows told alone, which are put into ``picks`` from row ``known`` on."""
    X = np.concatenate([t.X for t in told])
    index = np.concatenate([first + t.rows for first, t in zip(firsts, told, strict=True)])
    nearest, best = (np.concatenate([t.gaps[k] for t in told]) for k in (0, 1))
    # Of equal gaps the first row counts, as in one process.
    bound = max((t.next_gap, -(first + t.next_row)) for first, t in zip(firsts, told, strict=True))
    for k in range(known, len(picks)):
        far = int(np.argmax(best))
        if best[far] <= COPY or (best[far], -index[far]) < bound:
            return
        picks[k] = X[far]
        yield int(index[far])
        backends.of(X).regression.nearest_picks(X, picks[: k + 1], k, nearest, best)


def _farthest_from_mean(pool, chunks: list, firsts: np.ndarray, n: int) -> tuple[int, np.ndarray]:
    total = None
    for x in chunks:
        total = pool.submit(_added, total, x)
    gaps, rows, X = zip(*pool.gather([pool.submit(_farthest_from, x, total, n) for x in chunks]), strict=True)
    chunk = int(np.argmax(gaps))
    return int(firsts[chunk]) + rows[chunk], X[chunk]


def _added(total: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    """Sum of rows, one after the other: the bits of the sum do not depend on how rows are cut into chunks."""
    return np.add.reduce(x if total is None else np.concatenate([total[None], x]), axis=0)


def _farthest_from(x: np.ndarray, total: np.ndarray, n: int) -> tuple[float, int, np.ndarray]:
    gaps = ((x - total / n) ** 2).sum(axis=1)
    row = int(np.argmax(gaps))
    return float(gaps[row]), row, x[row].copy()


def _untouched(n: int) -> Gaps:
    return Gaps(np.zeros(n, dtype=np.int64), np.full(n, np.inf))


def _joined(picks: np.ndarray | None, new: np.ndarray) -> np.ndarray:
    return new if picks is None else np.concatenate([picks, new])


def _lowered(x: np.ndarray, gaps: Gaps, picks: np.ndarray, start: int) -> Gaps:
    """Gaps with the picks from ``start`` on taken into account."""
    nearest, best = gaps.nearest.copy(), gaps.best.copy()
    backends.of(x).regression.nearest_picks(x, picks, start, nearest, best)
    return Gaps(nearest, best)


def _farthest(x: np.ndarray, gaps: Gaps, n: int) -> Told:
    order = np.argsort(-gaps.best, kind="stable")
    rows, rest = np.sort(order[:n]), order[n : n + 1]
    next_row, next_gap = (int(rest[0]), float(gaps.best[rest[0]])) if len(rest) else (0, -1.0)
    return Told(rows, x[rows], Gaps(gaps.nearest[rows], gaps.best[rows]), next_row, next_gap)
