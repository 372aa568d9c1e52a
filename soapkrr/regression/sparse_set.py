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
from soapkrr.regression.terms import Term
from soapkrr.selection import SELECTIONS, share
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)


def sparse_points(term: Term, frames: list[Atoms], threads: int | None, progress: bool) -> tuple[Descriptor, list[np.ndarray]]:
    """The term's descriptor with what it learnt from the data, and per species (M_s, n_features) sparse points."""
    X, kinds = all_environments(term.descriptor, frames, threads, progress)
    descriptor = term.descriptor.fitted(X)
    if descriptor is not term.descriptor:
        X, kinds = all_environments(descriptor, frames, threads, progress)
    counts = np.bincount(kinds, minlength=len(descriptor.species))
    if descriptor.linear_basis and isinstance(term.kernel, Linear):
        return descriptor, [np.eye(descriptor.n_features)[: None if count else 0] for count in counts]
    wanted = numbers_wanted(term, counts)
    points = []
    for s, symbol in enumerate(descriptor.species):
        x = X[kinds == s]
        picked = SELECTIONS[term.selection](x, int(wanted[s])) if counts[s] else np.zeros(0, dtype=np.int64)
        if len(picked) < wanted[s]:
            logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(picked))
        points.append(np.ascontiguousarray(x[picked]))
    return descriptor, points


def all_environments(descriptor: Descriptor, frames: list[Atoms], threads: int | None, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """X (n, n_features) and species index (n,) of every atom of the data; data without a pair that the descriptor needs are refused."""

    def environments(group):
        first, group = group
        batch = Batch.from_atoms(group, first)
        env = descriptor.environments(batch, batch.pairs(descriptor.r_cut, first), first)
        return env.X, env.pairs.kinds, len(env.pairs.neighbours)

    groups = list(split_by_atoms(frames, 512))
    found = list(track(thread_map(environments, groups, threads), len(groups), "environments", progress))
    if descriptor.needs_pairs and not sum(n for _, _, n in found):
        raise InputError(
            f"`r_cut`={descriptor.r_cut}: no two atoms of the data are that close; {type(descriptor).__name__} needs a larger one."
        )
    return np.concatenate([x for x, _, _ in found]), np.concatenate([k for _, k, _ in found])


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
