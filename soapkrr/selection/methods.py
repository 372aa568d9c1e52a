"""Choice of sparse points among the environments of one species."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from soapkrr import backends
from soapkrr.errors import InputError


def farthest_point_sampling(X: np.ndarray, n: int) -> np.ndarray:
    """Indices of up to ``n`` rows, each farthest from those picked before; the first is farthest from the mean.

    Copies of a picked row are never picked, so fewer may come back. Source: Eldar et al. 1997, doi 10.1109/83.623193.

    Parameters
    ----------
    X : (n_points, n_features).
    """
    xp, centre = backends.namespace(X), X.mean(axis=0)
    # A block at a time: the differences of all rows would take twice the memory of X.
    gaps = [((X[a : a + 4096] - centre) ** 2).sum(axis=1) for a in range(0, len(X), 4096)]
    first = int(xp.argmax(xp.concatenate(gaps)))
    picked, gaps = xp.empty(n, dtype=np.int64), xp.empty(n)
    return backends.host(picked[: backends.of(X).regression.farthest_points(X, first, n, picked, gaps)])


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
    basis = np.empty((min(n, *X.shape), X.shape[1]))
    while len(picked) < len(basis) and np.trace(gram) > floor:
        _, vectors = np.linalg.eigh(gram)
        score = np.where(left, (X @ vectors[:, -1]) ** 2, -1.0)
        best = int(np.argmax(score))
        x = _orthogonal(X[best], basis[: len(picked)])
        if x is None:
            break
        basis[len(picked)] = x
        gram = gram - np.outer(x, x @ gram)
        gram = gram - np.outer(gram @ x, x)
        picked.append(best)
        left[best] = False
    return picked


def _orthogonal(x: np.ndarray, basis: np.ndarray) -> np.ndarray | None:
    """Unit vector along the part of x orthogonal to the rows of ``basis``, twice projected; None if rounding is all that is left."""
    rest = x - (basis @ x) @ basis
    rest = rest - (basis @ rest) @ basis
    norm = np.linalg.norm(rest)
    return rest / norm if norm > 1e-12 * np.linalg.norm(x) else None


def leverage(X: np.ndarray, n: int, rank: int | None = None, seed: int | None = None) -> np.ndarray:
    """Indices of ``n`` rows by leverage score |U_i|², U the leading ``rank`` left singular vectors.

    Source: Mahoney and Drineas 2009, doi 10.1073/pnas.0803205106.

    Parameters
    ----------
    X : (n_points, n_features).
    rank : singular vectors that count; None takes ``n``, or as many as X has above 1e-5 of the largest singular value.
    seed : None takes the largest scores, which may be close copies of each other; a number draws without replacement with
        probability proportional to the score.
    """
    scores = leverage_scores(X, n if rank is None else rank)
    if seed is not None:
        # Ranking log p + Gumbel noise is drawing one after the other without replacement (Efraimidis and Spirakis 2006).
        with np.errstate(divide="ignore"):
            scores = np.log(scores) + np.random.default_rng(seed).gumbel(size=len(scores))
    return np.argsort(-scores, kind="stable")[:n]


def leverage_scores(X: np.ndarray, rank: int) -> np.ndarray:
    """(n_points,) squared norms of the rows of the leading ``rank`` left singular vectors of X; they add up to the rank."""
    values, vectors = np.linalg.eigh(X.T @ X)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    keep = values > 1e-10 * max(values[0], np.finfo(float).tiny)
    return ((X @ vectors[:, keep]) ** 2 / values[keep]).sum(axis=1)


def random_selection(X: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Indices of ``n`` rows drawn without replacement."""
    return np.random.default_rng(seed).permutation(len(X))[:n]


def k_means(X: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Indices of the ``n`` rows nearest to the centres of ``n`` clusters (Sculley 2010, doi 10.1145/1772690.1772862).

    No row is taken twice: a centre whose nearest row is gone has the next nearest.
    """
    if n >= len(X):
        return np.arange(len(X))
    centres = MiniBatchKMeans(n_clusters=n, random_state=seed, n_init=1).fit(X).cluster_centers_
    return nearest_rows(X, centres)


def nearest_rows(X: np.ndarray, centres: np.ndarray, block: int = 64) -> np.ndarray:
    """For each centre in turn, the nearest row of X not taken before."""
    squares = np.einsum("if,if->i", X, X)
    taken = np.zeros(len(X), dtype=bool)
    picked = np.empty(len(centres), dtype=np.int64)
    for start in range(0, len(centres), block):
        distances = squares[:, None] - 2 * X @ centres[start : start + block].T
        for k, column in enumerate(distances.T, start=start):
            picked[k] = np.argmin(np.where(taken, np.inf, column))
            taken[picked[k]] = True
    return picked


def stratified(X: np.ndarray, n: int, strata: np.ndarray, select=farthest_point_sampling, weights=None) -> np.ndarray:
    """Indices of ``n`` rows, so many from each stratum, chosen within each by ``select(X, n)``.

    Parameters
    ----------
    strata : (n_points,) label of each row.
    weights : None: shares in proportion to the strata's sizes; ``"equal"``; or {label: relative share}, strata not named having none.
        Strata with fewer rows than their share give all; every stratum gives one, or the ``n`` largest where there are more strata.
    """
    xp = backends.namespace(X)
    labels, counts = np.unique(strata, return_counts=True)
    if weights == "equal":
        weight = np.ones(len(labels))
    elif weights is None:
        weight = counts.astype(float)
    else:
        weight = np.array([weights.get(label, 0.0) for label in labels.tolist()], dtype=float)
    order = np.lexsort((np.arange(len(labels)), -counts, weight <= 0))
    chosen = np.sort(order[: min(n, np.count_nonzero(weight > 0))])
    if not len(chosen):
        return np.zeros(0, dtype=np.int64)
    numbers = share(counts[chosen], n, weight[chosen])
    members = [np.flatnonzero(strata == labels[g]) for g in chosen]
    return np.concatenate([rows[select(X[xp.asarray(rows)], int(k))] for rows, k in zip(members, numbers, strict=True)])


def share(counts: np.ndarray, n: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Split ``n`` sparse points over species in proportion to their environments, at least one each, none above its count.

    ``weights``: proportions other than ``counts``.
    """
    if n < len(counts):
        raise InputError(f"`n_sparse`={n} is smaller than the number of species ({len(counts)}).")
    if n >= counts.sum():
        return counts.copy()
    weights = counts if weights is None else weights
    target = n * weights / weights.sum()
    shares = np.clip(np.floor(target).astype(np.int64), 1, counts)
    while shares.sum() != n:
        step = 1 if shares.sum() < n else -1
        room = np.where((shares < counts) if step == 1 else (shares > 1), target - shares, -step * np.inf)
        shares[np.argmax(step * room)] += step
    return shares
