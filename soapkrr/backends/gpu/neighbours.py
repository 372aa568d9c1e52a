"""Neighbour pairs of one structure on a GPU, from a grid of bins: any cell and boundary conditions, sorted, the same every time."""

from __future__ import annotations

import cupy
import numpy as np

from soapkrr import backends
from soapkrr.backends.cpu.envelope import ordinary, spanned
from soapkrr.backends.cpu.neighbours import neighbours as on_cpu
from soapkrr.backends.gpu.compile import launch

#: Structures of fewer atoms are searched on the CPU, which takes less time than a dozen launches and a wait; unusual ones of any size too.
SMALL = 2000


def neighbours(points, box, periodic, cutoff):
    """(offsets, j, r_ij) of all pairs nearer than ``cutoff``, images counted, sorted by centre: as `cpu.neighbours`, on the GPU.

    ``points`` may be here or there; ``box`` and ``periodic`` are NumPy arrays.
    """
    here, cell, n = backends.host(points), spanned(box, periodic), len(points)
    if n < SMALL or not ordinary(here, cell, periodic, cutoff):
        return backends.moved(cupy, on_cpu(here, box, periodic, cutoff))
    points = cupy.asarray(points)
    place, shifts, grid = _bins(points, cell, np.asarray(periodic, dtype=bool), cutoff)
    order = cupy.argsort(place, kind="stable")
    bins = place[order]
    starts = cupy.searchsorted(bins, cupy.arange(int(grid[:3].prod()) + 1))
    arrays = points[order], bins, shifts[order], starts, cupy.asarray(cell), cupy.asarray(grid), float(cutoff) ** 2, order
    counts, blocks = cupy.empty(n, dtype=np.int64), -(-n // 128)
    launch("neighbours", "count_pairs", blocks, 128, np.int64(n), *arrays, counts)
    offsets = cupy.zeros(n + 1, dtype=np.int64)
    offsets[1:] = cupy.cumsum(counts)
    n_pairs = int(offsets[n])
    j, vectors = cupy.empty(n_pairs, dtype=np.int64), cupy.empty((n_pairs, 3))
    launch("neighbours", "fill_pairs", blocks, 128, np.int64(n), *arrays, offsets, j, vectors)
    return offsets, j, vectors


def _bins(points, cell, periodic, cutoff):
    """Bin of each atom, cells by which it lies outside the first (n, 3), and the grid as neighbours.cu takes it."""
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    fractions = points @ cupy.asarray(inverse)
    shifts = cupy.floor(fractions) * cupy.asarray(periodic.astype(float))
    low = np.where(periodic, 0.0, fractions.min(axis=0).get())
    extent = np.where(periodic, 1.0, np.maximum(fractions.max(axis=0).get() - low, 1e-12))
    n_bins = np.maximum(extent * heights // cutoff, 1).astype(np.int64)
    while n_bins.prod() > 4 * len(points) and n_bins.max() > 1:  # mostly vacuum
        n_bins[n_bins.argmax()] //= 2
    reach = np.ceil(cutoff * n_bins / (extent * heights) - 1e-9).astype(np.int64)
    reach = np.where(periodic, reach, np.minimum(reach, n_bins - 1))
    scaled = (fractions - shifts - cupy.asarray(low)) * cupy.asarray(n_bins / extent)
    at = cupy.clip(scaled.astype(np.int64), 0, cupy.asarray(n_bins - 1))
    place = (at[:, 0] * int(n_bins[1]) + at[:, 1]) * int(n_bins[2]) + at[:, 2]
    return place, shifts.astype(np.int64), np.concatenate([n_bins, reach, periodic.astype(np.int64)])
