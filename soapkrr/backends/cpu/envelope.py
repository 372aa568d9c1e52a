"""Which structures vesin searches well: its grid, predicted before it is built.

vesin bins atoms by the cutoff, at most 10⁵ bins. Bins of wide films and far fragments overflow or round to none (a division by zero
that ends the process); thin, skewed and crowded cells cost time and memory without bounds.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit

#: Cells by which an atom may lie outside the first one; vesin counts in 32 bits.
CELLS = 1e4

#: Bins at which vesin begins to make them larger.
BINS = 1e5

#: Visits of bins, and distances computed, that any structure may cost (some ms) and that each atom may add.
VISITS, VISITS_PER_ATOM = 1e6, 1000.0
DISTANCES, DISTANCES_PER_ATOM = 2e5, 5000.0

#: Atoms from which crowding is estimated, and the entries of the table in which their bins are counted.
SAMPLE, TABLE = 4096, 1 << 14


@jit
def spanned(box, periodic):
    """(3, 3) cell with the vectors of open axes replaced by unit vectors at right angles to the periodic ones and to each other."""
    cell = np.eye(3)
    n = periodic[0] + periodic[1] + periodic[2]
    for a in range(3):
        if periodic[a]:
            cell[a] = box[a]
    if n == 1:
        a = 0 if periodic[0] else (1 if periodic[1] else 2)
        along = box[a] / np.sqrt((box[a] ** 2).sum())
        across = _cross(along, np.eye(3)[np.argmin(np.abs(along))])
        cell[(a + 1) % 3] = across / np.sqrt((across**2).sum())
        cell[(a + 2) % 3] = _cross(along, cell[(a + 1) % 3])
    elif n == 2:
        a = 0 if not periodic[0] else (1 if not periodic[1] else 2)
        across = _cross(box[(a + 1) % 3], box[(a + 2) % 3])
        cell[a] = across / np.sqrt((across**2).sum())
    return cell


@jit
def _cross(a, b):
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


@jit
def ordinary(points, cell, periodic, cutoff):
    """Whether vesin finds the pairs of atoms in a `spanned` cell without failing, and in a time that suits their number."""
    n_atoms, mixed = len(points), periodic[0] != periodic[1] or periodic[1] != periodic[2]
    # vesin bins by fractions of the periodic vectors and by Cartesian coordinates where an axis is open.
    directions, low, extent = np.eye(3), np.zeros(3), np.empty(3)
    volume = cell[0] @ _cross(cell[1], cell[2])
    n_bins, reach = np.empty(3), np.empty(3)
    for a in range(3):
        if periodic[a]:
            directions[a] = _cross(cell[(a + 1) % 3], cell[(a + 2) % 3]) / volume
        smallest, largest = _range(points, directions[a])
        if periodic[a]:
            if max(-smallest, largest) > CELLS:
                return False
            extent[a] = 1.0 / np.sqrt((directions[a] ** 2).sum())
        else:
            low[a], extent[a] = smallest, max(1.01 * (largest - smallest), 1.0)
        n_bins[a] = max(np.trunc(extent[a] / cutoff), 1.0)
    if n_bins.prod() > BINS and not _fewer_bins(n_bins):
        return False
    for a in range(3):
        # vesin looks through the whole of an open axis if another one is periodic.
        reach[a] = n_bins[a] if mixed and not periodic[a] else max(np.ceil(cutoff * n_bins[a] / extent[a]), 1.0)
    if n_bins.prod() * (2 * reach + 1).prod() > VISITS + VISITS_PER_ATOM * n_atoms:
        return False
    distances, most = (2 * reach + 1).prod() * n_atoms, DISTANCES + DISTANCES_PER_ATOM * n_atoms
    return distances * n_atoms <= most or distances * _crowd(points, directions, low, n_bins, extent, periodic) <= most


@jit
def _range(points, direction):
    """(smallest, largest) projection."""
    x, y, z = direction
    smallest = largest = points[0, 0] * x + points[0, 1] * y + points[0, 2] * z
    for i in range(1, len(points)):
        f = points[i, 0] * x + points[i, 1] * y + points[i, 2] * z
        smallest, largest = min(smallest, f), max(largest, f)
    return smallest, largest


@jit
def _fewer_bins(n_bins):
    """Make the bins larger, as vesin does beyond `BINS`; whether one is left along every axis, with some margin."""
    x_y, y_z = n_bins[0] / n_bins[1], n_bins[1] / n_bins[2]
    z = (BINS / (x_y * y_z * y_z)) ** (1 / 3)
    n_bins[2] = np.trunc(z)
    n_bins[1] = np.trunc(y_z * n_bins[2])
    n_bins[0] = np.trunc(x_y * n_bins[1])
    return z > 1.01 and n_bins.min() >= 1


@jit
def _crowd(points, directions, low, n_bins, extent, periodic):
    """Mean number of atoms in the bin of an atom, from at most `SAMPLE` of them, evenly spaced, less what bins that share an entry add."""
    step = 1 + (len(points) - 1) // SAMPLE
    counts = np.zeros(TABLE, dtype=np.int32)
    total = sampled = 0
    for i in range(0, len(points), step):
        key = 0
        for a in range(3):
            f = points[i, 0] * directions[a, 0] + points[i, 1] * directions[a, 1] + points[i, 2] * directions[a, 2] - low[a]
            f = f - np.floor(f) if periodic[a] else f / extent[a]
            key = key * 1000003 + int(f * n_bins[a])
        key = (key ^ (key >> 16)) % TABLE
        total += counts[key]
        counts[key] += 1
        sampled += 1
    return 1.0 + max(2.0 * total / sampled - sampled / TABLE, 0.0) * step
