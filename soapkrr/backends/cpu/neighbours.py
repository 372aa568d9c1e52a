"""Neighbour pairs of one structure, by vesin."""

from __future__ import annotations

import vesin


def neighbours(points, box, periodic, cutoff):
    """(i, j, r_ij) of all pairs nearer than ``cutoff``, every image counted, sorted by i; ``box`` is zero where nothing is periodic."""
    search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    return search.compute(points=points, box=box, periodic=periodic, quantities="ijD")
