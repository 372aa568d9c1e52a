"""Neighbour list of one structure, by vesin; of unusual ones by a k-d tree."""

from __future__ import annotations

import numpy as np
import vesin

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.envelope import ordinary, spanned
from soapkrr.backends.cpu.images import half_list, refuse_crowds, tidy


def neighbours(points: np.ndarray, box: np.ndarray, periodic: np.ndarray, cutoff: float):
    """(offsets, j, r_ij) of all pairs nearer than ``cutoff``, every image counted, sorted by centre.

    ``box`` counts where ``periodic`` is true; offsets (n_atoms + 1,) and j (n_pairs,) are int64, r_ij (n_pairs, 3).

    Raises
    ------
    InputError : there would be more pairs than any matter has.
    """
    cell = spanned(box, periodic)
    usual = ordinary(points, cell, periodic, cutoff)
    if not usual:
        points, cell = tidy(points, cell, periodic)
        usual = ordinary(points, cell, periodic, cutoff)
    if usual:
        # Half the search, and no sort.
        search = vesin.NeighborList(cutoff=cutoff, full_list=False, n_threads=1)
        i, j, vectors = search.compute(points=points, box=cell, periodic=periodic, quantities="ijD", copy=False)
    else:
        pairs, vectors = half_list(points, cell, periodic, cutoff)
        i, j = pairs.T
    refuse_crowds(len(points), 2.0 * len(i), cutoff)
    offsets, both, full = np.zeros(len(points) + 1, dtype=np.int64), np.empty(2 * len(i), dtype=np.int64), np.empty((2 * len(i), 3))
    _both_directions(i, j, vectors, offsets, both, full)
    return offsets, both, full


def of_moved(offsets, j, vectors, moved, cutoff: float):
    """(offsets, j, r_ij) of the pairs nearer than ``cutoff`` among those of a longer list, after atoms have ``moved`` (n_atoms, 3)."""
    near, both, full = np.empty_like(offsets), np.empty_like(j), np.empty_like(vectors)
    n = _of_moved(offsets, j, vectors, moved, cutoff, near, both, full)
    return near, both[:n], full[:n]


@jit
def _of_moved(offsets, j, vectors, moved, cutoff, near, both, full):
    n = 0
    near[0] = 0
    for i in range(offsets.shape[0] - 1):
        for p in range(offsets[i], offsets[i + 1]):
            a = j[p]
            x = vectors[p, 0] + (moved[a, 0] - moved[i, 0])
            y = vectors[p, 1] + (moved[a, 1] - moved[i, 1])
            z = vectors[p, 2] + (moved[a, 2] - moved[i, 2])
            both[n], full[n, 0], full[n, 1], full[n, 2] = a, x, y, z
            n += x * x + y * y + z * z < cutoff * cutoff
        near[i + 1] = n
    return n


@jit
def _both_directions(i, j, vectors, offsets, neighbours, full):
    """The full list, sorted by centre, of a half list of n pairs i → j: ``offsets`` (zeros before), ``neighbours``, ``full`` (2·n, 3)."""
    for p in range(i.shape[0]):
        offsets[i[p] + 1] += 1
        offsets[j[p] + 1] += 1
    for a in range(offsets.shape[0] - 1):
        offsets[a + 1] += offsets[a]
    place = offsets.copy()
    for p in range(i.shape[0]):
        there, back = place[i[p]], place[j[p]] + (1 if i[p] == j[p] else 0)
        place[i[p]] += 1
        place[j[p]] += 1
        neighbours[there], neighbours[back] = j[p], i[p]
        for b in range(3):
            full[there, b], full[back, b] = vectors[p, b], -vectors[p, b]
