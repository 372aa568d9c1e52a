"""Operations and scratch space of the leave-out at the end of a fit that is calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

import numpy as np

from soapkrr.planning.exact import ObservationSizes
from soapkrr.planning.plan import Step
from soapkrr.planning.sizes import TermSize
from soapkrr.planning.sparse import prior_variances
from soapkrr.planning.work import Task, Work
from soapkrr.regression.exact.cholesky import Cholesky
from soapkrr.regression.exact.iterative import BySize
from soapkrr.regression.sparse.fit import SparseEnvironments


@singledispatch
def with_leave_out(scheme, task: Task, work: Work) -> Work:
    """The work of a fit with that of leaving every structure out, and what waits on a disk meanwhile; of other schemes as it is."""
    return work


@with_leave_out.register
def _(scheme: SparseEnvironments, task: Task, work: Work) -> Work:
    """Rows and prior variances are those of the fit, kept; B = rows R⁻¹, and 1 − B Bᵀ of every structure is decomposed."""
    rows, k = rows_of_structures(task), sum(t.rank for t in work.sizes)
    points = [(sum(t.points), t.rank) for t in work.sizes]
    n = float(rows.sum())
    steps = (
        prior_variances(work.sizes, work.data, {kind for kind in ("forces", "stress") if kind in work.data.rows}),
        Step("features of kept rows", "products", 2 * n * sum(p * rank for p, rank in points), 8 * n * sum(p for p, _ in points)),
        Step("leave-out: rows times R⁻¹", "factorisation", n * k**2, 16 * n * k),
        *blocks(rows, k),
    )
    return replace(work, steps=work.steps + steps, scratch=8.0 * n * _points(work.sizes))


@with_leave_out.register
def _(scheme: Cholesky, task: Task, work: Work) -> Work:
    """Blocks of (K + Σ)⁻¹ from its factor."""
    rows = rows_of_structures(task)
    n = float(rows.sum())
    return replace(work, steps=(*work.steps, Step("leave-out: triangular solves", "factorisation", n**3, 8 * n**2), *blocks(rows, int(n))))


@with_leave_out.register
def _(scheme: BySize, task: Task, work: Work) -> Work:
    return with_leave_out(scheme.resolved(ObservationSizes.of(task.labelled())[0].observations), task, work)


def rows_of_structures(task: Task) -> np.ndarray:
    """(n_structures,) known labels of each."""
    values = [[np.isfinite(v).sum() for v in (label.energy, label.forces, label.stress) if v is not None] for label in task.labels]
    return np.array([sum(counts) for counts in values], dtype=float)


def blocks(rows: np.ndarray, k: int) -> tuple[Step, ...]:
    """The block of every structure, made of k features, and its decomposition."""
    return (
        Step("leave-out: blocks of structures", "blocks", float((2 * rows**2 * k).sum())),
        Step("leave-out: their decompositions", "factorisation", float((rows**3).sum())),
    )


def _points(sizes: Sequence[TermSize]) -> int:
    return sum(sum(t.points) for t in sizes)
