"""Which calculation next: by how much the labels of candidates would narrow observables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr.display import Tabular, ends
from soapkrr.errors import InputError
from soapkrr.labels import KINDS
from soapkrr.regression.data import check_structures
from soapkrr.regression.explained import Explained
from soapkrr.regression.functionals import Functionals
from soapkrr.regression.process import Process
from soapkrr.structures import as_frames
from soapkrr.uncertainty.observables import Energy, Force, Observable, Stress, as_observables, functionals_of


@dataclass(frozen=True, eq=False, repr=False)
class VarianceDrop(Tabular):
    """What labels of candidates would do to the variances of observables.

    Attributes
    ----------
    variance : (n_observables,) as it is.  drop : (n_candidates, n_observables) by how much each candidate alone would lower it.
    score : (n_candidates,) mean of drop/variance over the observables, over the cost.
    picked : indices of candidates, best first, each chosen with the labels of those before it at hand.
    left : (n_picked, n_observables) variances after each pick.
    """

    variance: np.ndarray
    drop: np.ndarray
    score: np.ndarray
    picked: list[int]
    left: np.ndarray

    def _title(self) -> str:
        return f"Picked of {len(self.drop)} candidates, and the mean of std after over std before"

    def _columns(self) -> list[str]:
        return ["candidate", "std ratio"]

    def _rows(self) -> list[list[str]]:
        ratio = np.sqrt(self.left / np.where(self.variance > 0, self.variance, 1.0)).mean(axis=1)
        return [["…", "…"] if k is None else [str(self.picked[k]), f"{ratio[k]:.3f}"] for k in ends(len(self.picked))]


def variance_drop(
    process: Process, noise: Mapping[str, float], candidates, observables, cost=None, n: int = 1, labels: Sequence[str] = KINDS
) -> VarianceDrop:
    """See `Potential.variance_drop`."""
    frames, wanted = as_frames(candidates), as_observables(observables)
    if not (isinstance(n, (int, np.integer)) and 0 < n <= len(frames)):
        raise InputError(f"`n` must be 1 to {len(frames)}, the number of candidates, received {n!r}.")
    check_structures(frames, process.descriptors, pairs=False)
    cost = _costs(cost, len(frames))
    groups = [_labels_of(atoms, labels, noise, index) for index, atoms in enumerate(frames)]
    functionals, _ = functionals_of([*wanted, *(one for observed, _ in groups for one in observed)])
    ends_of = len(wanted) + np.cumsum([0] + [len(sigma) for _, sigma in groups])
    slices = [slice(a, b) for a, b in zip(ends_of, ends_of[1:], strict=False)]
    variance = np.diagonal(process.covariance(_first(functionals, len(wanted)))).copy()
    explained, left, picked, first = process.explained(functionals), [variance], [], None
    for _ in range(n):
        drops = np.array([_drop(explained, len(wanted), at, sigma) for at, (_, sigma) in zip(slices, groups, strict=True)])
        score = (drops / np.where(variance > 0, variance, 1.0)).mean(axis=1) / cost
        first = first or (drops, score.copy())
        score[picked] = -np.inf
        picked.append(int(np.argmax(score)))
        left.append(np.maximum(left[-1] - drops[picked[-1]], 0.0))
        if len(picked) < n:
            explained = explained.observed(slices[picked[-1]], groups[picked[-1]][1])
    return VarianceDrop(variance, *first, picked, np.array(left[1:]))


def _costs(cost, n: int) -> np.ndarray:
    costs = np.ones(n) if cost is None else np.asarray(cost, dtype=float)
    if costs.shape != (n,) or not (np.isfinite(costs) & (costs > 0)).all():
        raise InputError(f"`cost` must be {n} positive numbers, one for each candidate, or None, received {cost!r}.")
    return costs


def _labels_of(atoms: Atoms, labels: Sequence[str], noise: Mapping[str, float], index: int) -> tuple[list[Observable], np.ndarray]:
    """What a calculation of a candidate would observe, and the noise of each."""
    labels = [labels] if isinstance(labels, str) else list(labels)
    if not labels or not set(labels) <= set(KINDS):
        raise InputError(f"`labels` must be some of {KINDS}, received {labels!r}.")
    observed: dict[str, list[Observable]] = {"energy": [Energy(atoms)], "forces": list(Force.all(atoms).ravel())}
    observed["stress"] = [Stress(atoms, v) for v in range(6)] if atoms.pbc.all() else []
    scale = {"energy": np.sqrt(len(atoms))}
    sigma = [np.full(len(observed[kind]), noise[kind] * scale.get(kind, 1.0)) for kind in labels]
    found = [one for kind in labels for one in observed[kind]]
    if not found:
        raise InputError(f"candidate {index} has no three-dimensional cell, so its stress cannot be computed; ask for other `labels`.")
    return found, np.concatenate(sigma)


def _first(functionals: Functionals, n: int) -> Functionals:
    return Functionals(functionals.batch, functionals.energies[:n], functionals.forces[:n], functionals.stress[:n])


def _drop(explained: Explained, n: int, some: slice, sigma: np.ndarray) -> np.ndarray:
    """(n,) fall of the variances of the first n functionals when ``some`` are observed: the diagonal of C (S + Σ)⁻¹ Cᵀ."""
    half = np.linalg.solve(np.linalg.cholesky(explained.block(some, some) + np.diag(sigma**2)), explained.block(some, slice(0, n)))
    return np.einsum("ko,ko->o", half, half)
