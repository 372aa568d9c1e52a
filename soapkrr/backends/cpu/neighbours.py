"""Neighbour lists, compiled by numba."""

from __future__ import annotations

from soapkrr.backends.cpu.compile import jit


@jit
def both_directions(i, j, vectors, offsets, neighbours, full):
    """The full list, sorted by centre, of a half list of pairs i → j: ``offsets`` (n_atoms + 1,), ``neighbours`` and ``full`` (2·n, 3)."""
    offsets[:] = 0
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
