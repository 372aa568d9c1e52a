"""Neighbour lists of single structures, by vesin."""

from __future__ import annotations

import numpy as np
import vesin


def neighbours(points: np.ndarray, box: np.ndarray, periodic: np.ndarray, cutoff: float):
    """i, j (n_pairs,) int64 and r_ij (n_pairs, 3) of all pairs closer than ``cutoff``, images counted, sorted by i."""
    found = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    i, j, vectors = found.compute(points=points, box=box, periodic=periodic, quantities="ijD")
    return i.astype(np.int64), j.astype(np.int64), vectors
