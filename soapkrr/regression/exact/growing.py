"""More observations for an exact process: rows are added to the Cholesky factor, nothing that was computed is computed again.

With L Lᵀ = K + Σ of what was observed, and K₂₁, K₂₂ the covariances of what is new, the factor grows by the rows [Sᵀ, L₂₂],
S = L⁻¹K₁₂ and L₂₂ L₂₂ᵀ = K₂₂ + Σ₂ − SᵀS: n₂ N² operations in place of N³/3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from soapkrr import linear
from soapkrr.baselines import baseline_energies
from soapkrr.errors import InputError
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.cholesky import collapse
from soapkrr.regression.exact.compositions import TILE, Composition, ObservedStructures, located
from soapkrr.regression.exact.covariance import covariance
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.targets import observation_targets


def grown(process: ExactProcess, more: TrainingData, noise, shift: Mapping[str, float]) -> tuple[ExactProcess, float]:
    """The process with the observations of more structures, and its log evidence.

    Parameters
    ----------
    more : structures and labels less prior means, with reference energies; in this order they follow those observed before.
    noise : {kind: σ} of the fit.  shift : {symbol: reference energy before, less that of ``more``}, eV.
    """
    if process.targets is None:
        raise InputError("the model does not state what it was fitted to, as files of earlier versions do not; fit it again.")
    old, threads = process.structures, process.threads
    structures = ObservedStructures.of(more)
    added = [structures.compositions(descriptor, threads) for descriptor in process.descriptors]
    y, sigma = observation_targets(more, noise)
    known = np.flatnonzero(np.isfinite(sigma))
    cross, own = 0.0, 0.0
    for part, trained, new in zip(process.parts, process.compositions, added, strict=True):
        rows, columns = located(new, known), located(trained, process.picked)
        cross = cross + part.signal**2 * covariance(part.kernel, new, trained, threads)[np.ix_(rows, columns)]
        own = own + part.signal**2 * covariance(part.kernel, new, threads=threads)[np.ix_(rows, rows)]
    factor = _longer(process.factor, cross, own + np.diag(sigma[known] ** 2), threads)
    targets = np.concatenate([_shifted(process, shift), y[known]])
    half = linear.forward(factor, targets)
    joined = old.joined(structures)
    picked = np.concatenate([process.picked, old.layout.size + known])
    weights = np.zeros(joined.layout.size)
    weights[picked] = linear.backward(factor, half)
    compositions = [_joined(trained, new, len(old.frames)) for trained, new in zip(process.compositions, added, strict=True)]
    parts = collapse(process.parts, compositions, weights)
    evidence = float(-0.5 * half @ half - np.log(np.diagonal(factor)).sum() - 0.5 * len(half) * np.log(2 * np.pi))
    observed = {"structures": joined, "compositions": compositions, "picked": picked}
    return replace(process, parts=parts, factor=factor, targets=targets, **observed), evidence


def _shifted(process: ExactProcess, shift: Mapping[str, float]) -> np.ndarray:
    """The targets so far, energies less other references."""
    layout, more = process.structures.layout, np.zeros(process.structures.layout.size)
    more[layout.energy] = [baseline_energies(shift, atoms.numbers).sum() for atoms in process.structures.frames]
    return process.targets + more[process.picked]


def _longer(L: np.ndarray, cross: np.ndarray, own: np.ndarray, threads: int | None) -> np.ndarray:
    """The factor (N + n, N + n) from L (N, N), covariances ``cross`` (n, N) with what is new, and that of the latter ``own`` (n, n)."""
    n_old, n = len(L), len(own)
    S = linear.forward(L, cross.T)
    try:
        corner = linear.cholesky(own - S.T @ S, threads)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the covariance of the observations is not positive definite ({error}); raise `noise`.") from error
    grown = np.zeros((n_old + n, n_old + n))
    grown[:n_old, :n_old], grown[n_old:, :n_old], grown[n_old:, n_old:] = np.tril(L), S.T, np.tril(corner)
    linear.check_condition(linear.covariance_condition(grown), linear.DOUBTFUL_COVARIANCE)
    return grown


def _joined(old: list[Composition], new: list[Composition], first: int) -> list[Composition]:
    """Compositions of all structures, those new counted from ``first``; tiles are filled before others are begun."""
    compositions = list(old)
    for same in new:
        moved = replace(same, index=same.index + first)
        place = next((k for k, one in enumerate(compositions) if len(one) + len(moved) <= TILE and _alike(one, moved)), None)
        if place is None:
            compositions.append(moved)
        else:
            one = compositions[place]
            X, V = ([np.concatenate(pair) for pair in zip(a, b, strict=True)] for a, b in ((one.X, moved.X), (one.V, moved.V)))
            compositions[place] = replace(one, X=X, V=V, index=np.concatenate([one.index, moved.index]))
    return compositions


def _alike(one: Composition, other: Composition) -> bool:
    shapes = [tuple(x.shape[1:] for x in same.V) for same in (one, other)]
    same = shapes[0] == shapes[1] and (one.forces, one.stress) == (other.forces, other.stress)
    return same and (one.kept is None) == (other.kept is None) and (one.kept is None or np.array_equal(one.kept, other.kept))
