"""Choice of sparse points among the environments of one species."""

from __future__ import annotations

import numpy as np

from soapkrr.backends import cpu
from soapkrr.errors import InputError


def farthest_point_sampling(X: np.ndarray, n: int) -> np.ndarray:
    """Indices of up to ``n`` rows, each farthest from those picked before; the first is farthest from the mean.

    Copies of a picked row are never picked, so fewer may come back. Source: Eldar et al. 1997, doi 10.1109/83.623193.

    Parameters
    ----------
    X : (n_points, n_features).
    """
    first = int(np.argmax(((X - X.mean(axis=0)) ** 2).sum(axis=1)))
    picked, gaps = np.empty(n, dtype=np.int64), np.empty(n)
    return picked[: cpu.farthest_points(X, first, n, picked, gaps)]


def cur(X: np.ndarray, n: int) -> np.ndarray:
    """Indices of up to ``n`` rows by CUR: the largest weight in the leading left singular vector, projected out, and again.

    When the rows picked span all features, the projection starts afresh on the rows that are left
    (Imbalzano et al. 2018, doi 10.1063/1.5024611).
    """
    rest = np.arange(len(X))
    picked: list[int] = []
    while len(picked) < n and len(rest):
        round_ = _cur_round(X[rest], n - len(picked))
        if not len(round_):
            break
        picked.extend(rest[round_])
        rest = np.delete(rest, round_)
    return np.array(picked, dtype=np.int64)


def _cur_round(X: np.ndarray, n: int) -> list[int]:
    gram = X.T @ X
    floor = 1e-12 * np.trace(gram)
    picked: list[int] = []
    left = np.ones(len(X), dtype=bool)
    while len(picked) < min(n, len(X)) and np.trace(gram) > floor:
        _, vectors = np.linalg.eigh(gram)
        score = np.where(left, (X @ vectors[:, -1]) ** 2, -1.0)
        best = int(np.argmax(score))
        x = X[best] - _projection(X[best], gram, vectors)
        norm = np.linalg.norm(x)
        if norm == 0:
            break
        x = x / norm
        gram = gram - np.outer(x, x @ gram)
        gram = gram - np.outer(gram @ x, x)
        picked.append(best)
        left[best] = False
    return picked


def _projection(x: np.ndarray, gram: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Part of x in the null space of the deflated Gram matrix (already spanned by earlier picks)."""
    values = np.einsum("fk,fk->k", vectors, gram @ vectors)
    null = vectors[:, values < 1e-13 * values.max()]
    return null @ (null.T @ x)


SELECTIONS = {"fps": farthest_point_sampling, "cur": cur}


def share(counts: np.ndarray, n: int) -> np.ndarray:
    """Split ``n`` sparse points over species in proportion to their environments, at least one each, none above its count."""
    if n < len(counts):
        raise InputError(f"`n_sparse`={n} is smaller than the number of species ({len(counts)}).")
    if n >= counts.sum():
        return counts.copy()
    shares = np.clip(np.floor(n * counts / counts.sum()).astype(np.int64), 1, counts)
    while shares.sum() != n:
        step = 1 if shares.sum() < n else -1
        room = np.where((shares < counts) if step == 1 else (shares > 1), n * counts / counts.sum() - shares, -step * np.inf)
        shares[np.argmax(step * room)] += step
    return shares
