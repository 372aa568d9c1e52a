"""Residuals of training labels in units of their noise, and how far each label is from what all others make of it.

For labels y with covariance C = K + Σ, the residual is r = ΣC⁻¹y, and t = Σ^{-1/2} r. A wrong label pulls the model towards itself, and its
neighbours' residuals grow with its own; of all z_i = t_i/√G_ii with G = Σ^{1/2} C⁻¹ Σ^{1/2}, though, its own is largest (Cauchy and
Schwarz). z_i is the error of y_i in a model fitted without it, over the standard deviation of that error. Taking a label out changes t and
G by one sweep, t ← t − G_{·i} t_i/G_ii, so wrong labels are found one by one (Rasmussen and Williams 2006, section 5.4.2; Cook and
Weisberg 1982, Residuals and Influence in Regression).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
from scipy.special import ndtri

from soapkrr import backends, linear
from soapkrr.labels import KINDS, Labels
from soapkrr.prediction import Prediction
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.compositions import ObservedStructures, located
from soapkrr.regression.exact.posterior import ExactProcess, SubsetProcess
from soapkrr.regression.known import KnownLabels, unpredicted
from soapkrr.regression.leave_out import LeaveOut
from soapkrr.regression.process import Process
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.structures import Batch
from soapkrr.threads import thread_map

#: Labels looked at closely: those of largest residual of each kind; structures from which others are drawn, by kind.
WORST, OTHERS = 40, (100, 20, 20)


@dataclass(frozen=True, eq=False, repr=False)
class Residuals(KnownLabels):
    """Given and predicted values of the labels of a fit that something predicts: of all but the energies of isolated atoms.

    Attributes
    ----------
    predicted : in the units of ``given``.
    """

    ARRAYS = (*KnownLabels.ARRAYS, "predicted")

    predicted: np.ndarray

    @classmethod
    def of(cls, data: TrainingData, prediction: Prediction, noise: Mapping[str, float]) -> Residuals:
        """Of a fit's data and its prediction for them, prior means left out of both."""
        labels = KnownLabels.of(data, noise)
        labels = labels.some(~unpredicted(data, labels))
        predicted = [Labels(*parts) for parts in zip(prediction.energy, prediction.forces, prediction.stress, strict=True)]
        return cls(**{name: getattr(labels, name) for name in labels.ARRAYS}, predicted=labels.values_of(predicted, data.sizes))

    @classmethod
    def of_leave_out(cls, data: TrainingData, found: LeaveOut) -> Residuals:
        """The same from a leave-out of the data, which has predicted all labels already."""
        there = replace(found, structure=np.argsort(data.order)[found.structure])
        there = there.some(np.lexsort((there.component, there.structure, there.kind)))
        return cls(**{name: getattr(there, name) for name in KnownLabels.ARRAYS}, predicted=there.fitted)

    @property
    def scaled(self) -> np.ndarray:
        """t, in units of the noise."""
        return (self.given - self.predicted) / self.sigma


def spread(t: np.ndarray, n_structures: int) -> float:
    """Standard deviation of a normal law with the same nine tenths, or fewer where one of the structures is more than a tenth of them.

    The median absolute deviation is too small where half of the labels are zero by symmetry.
    """
    part = min(0.9, 1 - 1.5 / n_structures)
    return float(np.quantile(np.abs(t), part, method="lower") / ndtri((1 + part) / 2))


def looked_at(residuals: Residuals, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices of residuals to look at closely, and which of them are there for comparison.

    Of each kind the `WORST`, and those drawn from `OTHERS` structures at random, as many in all from each.
    """
    rng, worst, others = np.random.default_rng(seed), [], []
    for k in range(len(KINDS)):
        mine = np.flatnonzero(residuals.kind == k)
        if len(mine):
            worst.append(mine[np.argsort(-np.abs(residuals.scaled[mine]))[:WORST]])
            present = np.unique(residuals.structure[mine])
            others.append(_drawn(mine, residuals, rng.permutation(present)[: OTHERS[k]], rng))
    others = np.concatenate(others)
    chosen = np.unique(np.concatenate([*worst, others]))
    return chosen, np.isin(chosen, others)


def _drawn(mine: np.ndarray, residuals: Residuals, structures: np.ndarray, rng) -> np.ndarray:
    """Up to six residuals of each of some structures."""
    return np.concatenate([rng.permutation(mine[residuals.structure[mine] == s])[:6] for s in structures])


@singledispatch
def influence(process: Process, data: TrainingData, some: Residuals) -> np.ndarray:
    """G (m, m) of some labels; 1 where the process cannot tell at little cost."""
    return np.eye(len(some.sigma))


@influence.register
def _(process: ExactProcess, data: TrainingData, some: Residuals) -> np.ndarray:
    # Structures without labels are not in the process.
    present = np.array([not label.empty for label in data.labels])
    structure = (np.cumsum(present) - 1)[some.structure]
    place = np.searchsorted(process.picked, process.structures.layout.components(some.kind, structure, some.component))
    columns = np.zeros((len(process.factor), len(place)))
    columns[place, np.arange(len(place))] = some.sigma
    half = linear.forward(process.factor, columns)
    return half.T @ half


@influence.register
def _(process: SparseProcess, data: TrainingData, some: Residuals) -> np.ndarray:
    rows = np.empty((len(some.sigma), len(process.posterior.mean)))

    def fill(s):
        mine = np.flatnonzero(some.structure == s)
        rows[mine] = _design_rows(process, data, int(s), some.some(mine))

    for _ in thread_map(fill, np.unique(some.structure), process.threads):
        pass
    return _unexplained(process.posterior, rows / some.sigma[:, None])


@influence.register
def _(process: SubsetProcess, data: TrainingData, some: Residuals) -> np.ndarray:
    structures, owner = np.unique(some.structure, return_inverse=True)
    observed = ObservedStructures.of(data.some(structures.tolist()))
    compositions = [observed.compositions(descriptor, process.threads) for descriptor in process.descriptors]
    place = located(compositions[0], observed.layout.components(some.kind, owner, some.component))
    rows = process.cross(compositions)[0][place] @ process.transform
    return _unexplained(process.posterior, rows / some.sigma[:, None])


def _unexplained(posterior: linear.Posterior, rows: np.ndarray) -> np.ndarray:
    """1 − Φ̃ (RᵀR)⁻¹ Φ̃ᵀ of rows Φ̃ in units of the noise."""
    half = backends.of(rows).dense.solve_triangular(posterior.factor, rows.T, transposed=True)
    return np.eye(len(rows)) - half.T @ half


def _design_rows(process: SparseProcess, data: TrainingData, s: int, some: Residuals) -> np.ndarray:
    """Features (m, r) of some labels of one structure."""
    batch = Batch.from_atoms([data.frames[s]], s)
    parts = [(term, DesignRows(term, batch)) for term in process.terms]
    out = np.empty((len(some.sigma), len(process.posterior.mean)))

    def put(mine, rows_of: Callable, pick):
        whitened = [term.whiten(rows_of(design)) for term, design in parts]
        out[mine] = np.concatenate(whitened, axis=1)[pick]

    energy, forces, stress = (np.flatnonzero(some.kind == k) for k in range(3))
    if len(energy):
        put(energy, DesignRows.energy, 0)
    for atom in np.unique(some.component[forces] // 3):
        mine = forces[some.component[forces] // 3 == atom]
        put(mine, lambda design, a=int(atom): design.forces(a, a + 1), some.component[mine] % 3)
    if len(stress):
        put(stress, lambda design: design.strain(0, 1), some.component[stress])
        out[stress] /= batch.volumes[0]
    return out


def left_out(t: np.ndarray, G: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """z (m,) and left-out errors (m,) in units of the noise: of each label as predicted without it and without those beyond ``threshold``.

    Labels are taken out one by one, the largest |z| first, a third of them at most.
    """
    left, now = t.copy(), G.copy()
    taken = np.zeros(len(t), dtype=bool)
    for _ in range(len(t) // 3):
        z = np.where(taken, 0.0, left / np.sqrt(np.maximum(np.diagonal(now), 1e-14)))
        worst = int(np.argmax(np.abs(z)))
        if abs(z[worst]) <= threshold:
            break
        column = now[:, worst] / now[worst, worst]
        left, now = left - column * left[worst], now - np.outer(column, now[worst])
        taken[worst] = True
    diagonal = np.maximum(np.diagonal(now), 1e-14)
    z, errors = left / np.sqrt(diagonal), left / diagonal
    if taken.any():
        inverse = np.linalg.inv(G[np.ix_(taken, taken)])
        errors[taken] = inverse @ t[taken]
        z[taken] = errors[taken] / np.sqrt(np.diagonal(inverse))
    return z, errors
