"""Sparse points of a term, chosen among all environments of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.kernels import Linear
from soapkrr.parallel import thread_map
from soapkrr.progress import track
from soapkrr.regression.terms import Term
from soapkrr.selection import share
from soapkrr.selectors import GivenPoints, Sites, as_selection
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)


#: Features held at once for a descriptor to learn from, bytes; more data are thinned out evenly.
LEARNING_BUDGET = 2**29


def sparse_points(term: Term, frames: list[Atoms], threads: int | None, progress: bool, xp=np) -> tuple[Descriptor, list[np.ndarray]]:
    """The term's descriptor with what it learnt from the data, and per species (M_s, n_features) sparse points, arrays of ``xp``."""
    descriptor = learnt(term.descriptor, frames, threads, progress, xp)
    X, kinds = environments(descriptor, frames, threads, progress, xp)
    counts = np.bincount(kinds, minlength=len(descriptor.species))
    if descriptor.linear_basis and isinstance(term.kernel, Linear):
        return descriptor, [xp.eye(descriptor.n_features)[: None if count else 0] for count in counts]
    selection, sites = as_selection(term.selection), Sites.of(frames)
    given = isinstance(selection, GivenPoints)
    wanted = counts if given else numbers_wanted(term, counts)
    points = []
    for s, symbol in enumerate(descriptor.species):
        mine = kinds == s
        x = X if mine.all() else X[xp.asarray(mine)]
        picked = selection.pick(x, int(wanted[s]), sites.some(mine)) if counts[s] else np.zeros(0, dtype=np.int64)
        if counts[s] and not len(picked):
            raise InputError(f"`selection`={selection!r} chooses no environment of {symbol}, which the data have.")
        if len(picked) < wanted[s] and not given:
            logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(picked))
        points.append(xp.ascontiguousarray(x[xp.asarray(picked)]))
    return descriptor, points


def environments(descriptor: Descriptor, frames: list[Atoms], threads: int | None, progress: bool, xp=np) -> tuple[np.ndarray, np.ndarray]:
    """X (n, n_features), an array of ``xp``, and species index (n,) of every atom of the data."""
    kinds = descriptor.kinds(np.concatenate([atoms.numbers for atoms in frames]))
    ends = np.cumsum([len(atoms) for atoms in frames])
    X = xp.empty((len(kinds), descriptor.n_features))

    def fill(group):
        first, group = group
        batch = Batch.from_atoms(group, first)
        stop = ends[first + len(group) - 1]
        X[stop - batch.n_atoms : stop] = descriptor.environments(batch, batch.pairs(descriptor.r_cut, first, xp), first).X

    groups = list(split_by_atoms(frames, 2 * backends.loops(xp).GROUP))
    for _ in track(thread_map(fill, groups, threads), len(groups), "environments", progress):
        pass
    return X, kinds


def learnt(descriptor: Descriptor, frames: list[Atoms], threads: int | None, progress: bool, xp=np) -> Descriptor:
    """`Descriptor.fitted` on the environments of all structures, or of every n-th where they would exceed `LEARNING_BUDGET`."""
    if not descriptor.learns:
        return descriptor
    size = 8 * descriptor.n_features * sum(map(len, frames))
    thinned = frames[:: -(-size // LEARNING_BUDGET)]
    return descriptor.fitted(environments(descriptor, thinned, threads, progress, xp)[0])


def numbers_wanted(term: Term, counts: np.ndarray) -> np.ndarray:
    """Sparse points of each species, none above its number of environments ``counts``; more than exist is logged."""
    species, n = term.descriptor.species, term.n_sparse
    if isinstance(n, Mapping):
        missing = [s for s, count in zip(species, counts, strict=True) if count and not n.get(s)]
        if missing:
            raise InputError(f"`n_sparse` names no number of sparse points for {missing}.")
        asked = np.array([n.get(s, 0) for s in species])
        for symbol, a, count in zip(species, asked, counts, strict=True):
            if a > count:
                logger.warning("`n_sparse`=%d for %s exceeds its %d environments; all of them are used", a, symbol, count)
        return np.minimum(asked, counts)
    if not (isinstance(n, (int, np.integer)) and n > 0):
        raise InputError(f"`n_sparse` must be a positive integer or a mapping {{symbol: number}}, received {n!r}.")
    if n > counts.sum():
        logger.warning("`n_sparse`=%d exceeds the %d environments of the data; all of them are used", n, counts.sum())
    shares = np.zeros_like(counts)
    shares[counts > 0] = share(counts[counts > 0], int(n))
    return shares
