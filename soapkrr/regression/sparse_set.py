"""Sparse points of a term, chosen among all environments of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError
from soapkrr.parallel import thread_map
from soapkrr.progress import track
from soapkrr.regression.terms import Term
from soapkrr.selection import share
from soapkrr.selectors import GivenPoints, Sites, as_selection
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)


def sparse_points(term: Term, frames: list[Atoms], threads: int | None, progress: bool) -> list[np.ndarray]:
    """Per species (M_s, n_features) sparse points of a term."""
    descriptor = term.descriptor

    def environments(group):
        first, group = group
        batch = Batch.from_atoms(group, first)
        env = descriptor.environments(batch, batch.pairs(descriptor.r_cut, first), first)
        return env.X, env.pairs.kinds

    groups = list(split_by_atoms(frames, 512))
    found = list(track(thread_map(environments, groups, threads), len(groups), "environments", progress))
    kinds = np.concatenate([k for _, k in found])
    counts = np.bincount(kinds, minlength=len(descriptor.species))
    selection, sites = as_selection(term.selection), Sites.of(frames)
    given = isinstance(selection, GivenPoints)
    wanted = counts if given else numbers_wanted(term, counts)
    points = []
    for s, symbol in enumerate(descriptor.species):
        X = np.concatenate([x[k == s] for x, k in found])
        picked = selection.pick(X, int(wanted[s]), sites.some(kinds == s)) if counts[s] else np.zeros(0, dtype=np.int64)
        if counts[s] and not len(picked):
            raise InputError(f"`selection`={selection!r} chooses no environment of {symbol}, which the data have.")
        if len(picked) < wanted[s] and not given:
            logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(picked))
        points.append(np.ascontiguousarray(X[picked]))
    return points


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
