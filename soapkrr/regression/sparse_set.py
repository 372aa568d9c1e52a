"""Sparse points of a term, chosen among all environments of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.kernels import Linear
from soapkrr.parallel import thread_map
from soapkrr.progress import track
from soapkrr.regression.footprint import AT_ONCE, LEARNING_BUDGET, row_bytes
from soapkrr.regression.terms import Term
from soapkrr.selection import share
from soapkrr.selectors import GivenPoints, Sites, as_selection
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)


def sparse_points(
    term: Term, frames: list[Atoms], threads: int | None, progress: bool, limit: int | None = None, learning: int | None = None
) -> tuple[Descriptor, list[np.ndarray]]:
    """The term's descriptor with what it learnt from the data, and per species (M_s, n_features) sparse points.

    ``limit``: bytes for the features of the environments among which they are chosen; where all would exceed it, each species with too
    many is thinned out evenly, and a warning is logged.  ``learning``: as ``limit`` of `learnt`.
    """
    descriptor = learnt(term.descriptor, frames, threads, progress, learning)
    kinds = descriptor.kinds(np.concatenate([atoms.numbers for atoms in frames]))
    counts = np.bincount(kinds, minlength=len(descriptor.species))
    if descriptor.linear_basis and isinstance(term.kernel, Linear):
        return descriptor, [np.eye(descriptor.n_features)[: None if count else 0] for count in counts]
    selection, sites = as_selection(term.selection), Sites.of(frames)
    given = isinstance(selection, GivenPoints)
    wanted = counts if given else numbers_wanted(term, counts)
    if given:
        keep = np.zeros(len(kinds), dtype=bool)
        keep[selection.pick(None, 0, sites)] = True
    else:
        keep = candidates(
            kinds, wanted, None if limit is None else int(limit / row_bytes(descriptor.n_features, selection, np.count_nonzero(counts)))
        )
    X, kinds, sites = environments(descriptor, frames, threads, progress, keep), kinds[keep], sites.some(keep)
    points = []
    for s, symbol in enumerate(descriptor.species):
        mine = kinds == s
        x = X if mine.all() else X[mine]
        picked = selection.pick(x, int(wanted[s]), sites.some(mine)) if counts[s] else np.zeros(0, dtype=np.int64)
        if counts[s] and not len(picked):
            raise InputError(f"`selection`={selection!r} chooses no environment of {symbol}, which the data have.")
        if len(picked) < wanted[s] and not given:
            logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(picked))
        points.append(np.ascontiguousarray(x[picked]))
    return descriptor, points


def candidates(kinds: np.ndarray, wanted: np.ndarray, most: int | None) -> np.ndarray:
    """(n_atoms,) True for the environments among which points are chosen: all, or about ``most``, evenly spread within each species.

    Species with few environments keep all of them, none has fewer than ``wanted`` of it.
    """
    counts = np.bincount(kinds, minlength=len(wanted))
    if most is None or len(kinds) <= most:
        return np.ones(len(kinds), dtype=bool)
    low, high = 0, int(counts.max())
    while low < high:
        cap = (low + high + 1) // 2
        low, high = (cap, high) if np.minimum(counts, np.maximum(wanted, cap)).sum() <= most else (low, cap - 1)
    keep = np.zeros(len(kinds), dtype=bool)
    for s, n in enumerate(np.minimum(counts, np.maximum(wanted, low))):
        members = np.flatnonzero(kinds == s)
        keep[members[np.linspace(0, max(len(members) - 1, 0), n).round().astype(np.int64)]] = True
    logger.warning("`memory_limit`: sparse points are chosen among %d of the %d environments, spread evenly", keep.sum(), len(keep))
    return keep


def environments(
    descriptor: Descriptor, frames: list[Atoms], threads: int | None, progress: bool, keep: np.ndarray | None = None
) -> np.ndarray:
    """X (n, n_features) of every atom of the data, or of those where ``keep`` (n_atoms,) is True."""
    ends = np.cumsum([len(atoms) for atoms in frames])
    keep = np.ones(ends[-1], dtype=bool) if keep is None else keep
    places = np.concatenate([[0], np.cumsum(keep)])
    X = np.empty((places[-1], descriptor.n_features))

    def fill(group):
        first, group = group
        batch, stop = Batch.from_atoms(group, first), ends[first + len(group) - 1]
        mine = keep[stop - batch.n_atoms : stop]
        if mine.any():
            x = descriptor.environments(batch, batch.pairs(descriptor.r_cut, first), first).X
            X[places[stop - batch.n_atoms] : places[stop]] = x if mine.all() else x[mine]

    groups = list(split_by_atoms(frames, AT_ONCE))
    for _ in track(thread_map(fill, groups, threads), len(groups), "environments", progress):
        pass
    return X


def learnt(descriptor: Descriptor, frames: list[Atoms], threads: int | None, progress: bool, limit: int | None = None) -> Descriptor:
    """`Descriptor.fitted` on the environments of all structures, or every n-th where they exceed `LEARNING_BUDGET` or ``limit``."""
    if not descriptor.learns:
        return descriptor
    size, budget = 8 * descriptor.n_features * sum(map(len, frames)), LEARNING_BUDGET if limit is None else min(LEARNING_BUDGET, limit)
    thinned = frames[:: -(-size // budget)]
    if budget < size <= LEARNING_BUDGET:
        logger.warning("`memory_limit`: the descriptor learns from %d of the %d structures, spread evenly", len(thinned), len(frames))
    return descriptor.fitted(environments(descriptor, thinned, threads, progress))


def numbers_wanted(term: Term, counts: np.ndarray, warn: bool = True) -> np.ndarray:
    """Sparse points of each species, none above its number of environments ``counts``; more than exist is logged if ``warn``."""
    species, n = term.descriptor.species, term.n_sparse
    if isinstance(n, Mapping):
        missing = [s for s, count in zip(species, counts, strict=True) if count and not n.get(s)]
        if missing:
            raise InputError(f"`n_sparse` names no number of sparse points for {missing}.")
        asked = np.array([n.get(s, 0) for s in species])
        for symbol, a, count in zip(species, asked, counts, strict=True):
            if warn and a > count:
                logger.warning("`n_sparse`=%d for %s exceeds its %d environments; all of them are used", a, symbol, count)
        return np.minimum(asked, counts)
    if not (isinstance(n, (int, np.integer)) and n > 0):
        raise InputError(f"`n_sparse` must be a positive integer or a mapping {{symbol: number}}, received {n!r}.")
    if warn and n > counts.sum():
        logger.warning("`n_sparse`=%d exceeds the %d environments of the data; all of them are used", n, counts.sum())
    shares = np.zeros_like(counts)
    shares[counts > 0] = share(counts[counts > 0], int(n))
    return shares
