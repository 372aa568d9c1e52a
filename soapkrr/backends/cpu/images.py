"""Neighbour list of unusual structures by a k-d tree: wide films, far fragments, thin, skewed and crowded cells.

Atoms are brought into a reduced cell and given the images that can matter, as points of their own. Counts come before memory.
"""

from __future__ import annotations

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree

from soapkrr.errors import InputError

#: Images of atoms that any structure may have, and that each atom may add.
IMAGES, IMAGES_PER_ATOM = 300_000, 30

#: Neighbours that an atom may have, in the mean: so many, and so many for each Å³ within the cutoff.
NEIGHBOURS, DENSITY = 1000, 2.0

#: Atoms whose neighbours are counted.
SAMPLE = 500


def tidy(points: np.ndarray, cell: np.ndarray, periodic: np.ndarray):
    """(points, cell) of the same pairs: the shortest periodic vectors, and atoms in the first cell, to rounding, along periodic axes."""
    cell = _reduced(cell, periodic)
    inverse = np.linalg.inv(cell)
    for _ in range(2):
        points = points - (np.floor(points @ inverse) * periodic) @ cell
    return points, cell


def _reduced(cell, periodic):
    """The same lattice from its shortest periodic vectors; open axes stay."""
    if np.count_nonzero(periodic) < 2:
        return cell
    try:
        reduced, _ = minkowski_reduce(cell, periodic)
    except RuntimeError:
        raise InputError("the cell vectors are linearly dependent to rounding; check the cell.") from None
    return np.where(np.asarray(periodic)[:, None], np.asarray(reduced), cell)


def half_list(points: np.ndarray, cell: np.ndarray, periodic: np.ndarray, cutoff: float):
    """(pairs (n, 2) uint64, vectors (n, 3)): every pair nearer than ``cutoff`` once, i ≤ j; points and cell as `tidy` gives them.

    Raises
    ------
    InputError : there would be more pairs than memory or time allow; before they are made.
    """
    inverse = np.linalg.inv(cell)
    index, shifts = _images(points, cell, inverse, periodic, cutoff)
    images = points[index] + shifts @ cell
    tree = cKDTree(images)
    if tree.n > NEIGHBOURS:
        refuse_crowds(len(points), _sampled(points, tree, cutoff), cutoff)
    found = cKDTree(points).sparse_distance_matrix(tree, cutoff * (1 + 1e-9), output_type="ndarray")
    i, image = found["i"], found["j"]
    j = index[image]
    once = (i < j) | ((i == j) & _positive(shifts[image]))
    i, j, image = i[once], j[once], image[once]
    vectors = points[j] - points[i] + shifts[image] @ cell
    near = np.einsum("pa,pa->p", vectors, vectors) < cutoff**2
    return np.column_stack([i[near], j[near]]).astype(np.uint64), vectors[near]


def _images(points, cell, inverse, periodic, cutoff):
    """(atom of each image, its cells (n, 3)) of all images that may be nearer than ``cutoff`` to any atom."""
    fractions = points @ inverse
    reach = cutoff * np.linalg.norm(inverse, axis=0) * (1 + 1e-9) + 1e-9
    first = np.where(periodic, np.ceil(fractions.min(axis=0) - reach - fractions), 0.0)
    last = np.where(periodic, np.floor(fractions.max(axis=0) + reach - fractions), 0.0)
    counts = last - first + 1
    if counts.prod(axis=1).sum() > IMAGES + IMAGES_PER_ATOM * len(points):
        _refuse(len(points), _by_density(len(points), cell, periodic, cutoff), cutoff)
    index, shifts = np.arange(len(points)), np.zeros((len(points), 3))
    for axis in np.flatnonzero(periodic):
        n = counts[index, axis].astype(np.int64)
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        index, shifts = np.repeat(index, n), np.repeat(shifts, n, axis=0)
        shifts[:, axis] = first[index, axis] + within
    return index, shifts


def _by_density(n_atoms, cell, periodic, cutoff):
    """Pairs of atoms spread evenly over the periodic directions (2r per length, πr² per area, 4/3 πr³ per volume)."""
    vectors = cell[np.asarray(periodic)]
    ball = (1.0, 2.0, np.pi, 4 / 3 * np.pi)[len(vectors)] * cutoff ** len(vectors)
    return n_atoms**2 * ball / np.sqrt(np.linalg.det(vectors @ vectors.T))


def _sampled(points, tree, cutoff):
    """Number of pairs, from the neighbours of a sample of the atoms."""
    n = len(points)
    return (tree.query_ball_point(points[:: 1 + (n - 1) // SAMPLE], cutoff, return_length=True).mean() - 1) * n


def refuse_crowds(n_atoms: int, pairs: float, cutoff: float) -> None:
    """Raise `InputError` if there are more pairs than any matter has."""
    if pairs > n_atoms * (NEIGHBOURS + DENSITY * 4 / 3 * np.pi * cutoff**3):
        _refuse(n_atoms, pairs, cutoff)


def _refuse(n_atoms, pairs, cutoff):
    raise InputError(
        f"about {pairs:.2g} neighbour pairs within the cutoff of {cutoff} Å, {pairs / n_atoms:.2g} for each atom, more than in any "
        "matter; check the cell, the positions and their unit (Å), or lower the cutoff."
    )


def _positive(shifts):
    """Whether the first component that is not zero is positive."""
    x, y, z = shifts.T
    return (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
