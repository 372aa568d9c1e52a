"""Operations and bytes of fits and predictions whose representers are observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.descriptors.base import Descriptor
from soapkrr.execution.resources import GROUP, LEARNING_BYTES, Division
from soapkrr.planning.flops import described_flops, jacobian_flops, pair_traffic, projection_flops, qr_flops
from soapkrr.planning.plan import Step
from soapkrr.planning.sizes import ATOM, PAIR, Data, TermSize, check
from soapkrr.planning.work import Budget, Learning, Task, Work, fit_work, prediction_group, prediction_work, sizes_of
from soapkrr.regression.exact import compositions, posterior, wide
from soapkrr.regression.exact.atoms import ELEMENTS
from soapkrr.regression.exact.cholesky import Cholesky
from soapkrr.regression.exact.posterior import MatrixProcess, ObservationProcess
from soapkrr.regression.exact.subset import ObservationSubset

#: Labels that are looked at one by one after a fit, about.
CHECKED = 500

#: What to do where the covariance of all observations does not fit.
INSTEAD = "or fit a `SparseGP`, whose memory does not grow with the square of the data"


class ObservationSizes:
    """Numbers that costs depend on, of every structure: atoms of each species of a descriptor, and derivative observations.

    Parameters
    ----------
    forces : (n_structures,) part of the atoms whose forces are observed.  stress : (n_structures,) whether it is.

    Attributes
    ----------
    m : (n_structures, n_species).  k : (n_structures,).
    """

    def __init__(self, descriptor: Descriptor, frames: Sequence[Atoms], forces: Sequence[float], stress: Sequence[bool]):
        n = descriptor.n_kinds
        self.m = np.array([np.bincount(descriptor.kinds(atoms.numbers), minlength=n) for atoms in frames], dtype=float)
        self.k = 3.0 * self.m.sum(axis=1) * np.asarray(forces) + 6.0 * np.asarray(stress)

    @classmethod
    def of(cls, task: Task) -> list[ObservationSizes]:
        """As each term's descriptor sees the labelled structures of a task; atoms whose forces are masked have no covariances."""
        known = [np.isfinite(label.forces).any(axis=1).mean() if label.has("forces") else 0.0 for label in task.labels]
        stress = [label.has("stress") for label in task.labels]
        return [cls(t.descriptor, task.frames, known, stress) for t in task.terms]

    @property
    def observations(self) -> int:
        return round((1 + self.k).sum())

    def vectors(self, features: int) -> float:
        """Bytes of features and derivatives of all structures."""
        return float((8 * features * self.m.sum(axis=1) * (1 + self.k)).sum())

    def tile(self, features: int) -> float:
        """Bytes of a thread for one structure and a tile of others."""
        m, k, tile = self.m.max(axis=0).max(), self.k.max(), compositions.TILE
        if m * m * k > wide.WIDE:
            return 8.0 * tile * (5 * m * m + (1 + k) ** 2 + m * features) + 16.0 * wide.HELD
        return 8.0 * tile * (m * features * k + 3 * m * m * (1 + 2 * k) + 3 * (1 + k) ** 2) + 16 * m * features * (1 + k)

    def covariance_flops(self, features: int, other: ObservationSizes | None = None) -> float:
        """Operations for the covariance with other observations, or of half of the covariance of all with themselves."""
        b = self if other is None else other
        m, p, mk, pl = (x.sum(axis=0) for x in (self.m, b.m, self.m * self.k[:, None], b.m * b.k[:, None]))
        total = 2 * features * (2 * m @ pl + mk @ p + m @ p) + 2 * features * float(mk.sum() * b.k.sum()) + 6 * float(mk @ pl)
        return total / 2 if other is None else total


@fit_work.register
def exact_fit(scheme: Cholesky, task: Task, budget: Budget) -> Work:
    """A fit of all observations by Cholesky decomposition."""
    return _observation_fit(task, budget, None)


@fit_work.register
def subset_fit(scheme: ObservationSubset, task: Task, budget: Budget) -> Work:
    """A fit on the observations that pivoted Cholesky picks."""
    return _observation_fit(task, budget, int(scheme.n))


def _observation_fit(task: Task, budget: Budget, n_sparse: int | None) -> Work:
    task = task.labelled()
    data, sizes, seen = Data.of(task.frames, task.rows, budget.loops.GROUP), sizes_of(task.terms, task.frames), ObservationSizes.of(task)
    N, known = seen[0].observations, sum(data.rows.values())
    learning = Learning.of(task.terms, sizes, data, budget.xp)
    used = next((t for t in range(budget.threads, 0, -1) if _peak(_stages(task, sizes, seen, data, n_sparse, t, budget)) <= budget.room), 1)
    memory = _stages(task, sizes, seen, data, n_sparse, used, budget)
    alone = _stages(task, sizes, seen, data, n_sparse, 1, budget)
    least = {f"{stage} of {N} observations": sum(items.values()) for stage, items in alone.items()}
    check(budget.limit, least | learning.least(), INSTEAD)
    taught, teachers = learning.within(budget.room, budget.threads)
    steps = _fit_steps(task, sizes, seen, data, min(n_sparse or 0, known))
    division = replace(budget.unlimited, threads=used)
    if budget.limit is not None:
        division = replace(division, fillers=teachers, learning=int(taught) or LEARNING_BYTES)
    return Work(sizes, data, n_sparse or known, steps, learning.stage(taught, teachers) | memory, division)


def _stages(task: Task, sizes, seen, data: Data, n_sparse: int | None, threads: int, budget: Budget) -> dict[str, dict[str, float]]:
    """{stage: {item: bytes}} on so many threads."""
    N, known = seen[0].observations, sum(data.rows.values())
    matrix, copy = 8.0 * N * N, 8.0 * known * known if known < N else 0.0
    atoms = [c.m.sum(axis=1) * (1 + c.k) for c in seen]
    block = budget.loops.DISPLACED
    largest = max(24 * t.inner * a.max() + t.displaced(block) for a, t in zip(atoms, sizes, strict=True))
    n = min(n_sparse or 0, known)
    kept = {"features and derivatives": sum(c.vectors(t.features) for c, t in zip(seen, sizes, strict=True)), "labels": ATOM * data.atoms}
    tile = max(c.tile(t.features) for c, t in zip(seen, sizes, strict=True))
    factors = 8.0 * n * max(known, 4 * known + 6 * n) if n_sparse else 0.0
    decomposition = {"matrix": matrix, "known rows": copy, "factors": factors, **kept}
    return {
        "derivatives of the observations": {f"being made on {threads} threads": threads * largest, **kept},
        "covariance": {"matrix": matrix * min(2, len(task.terms)), f"tiles on {threads} threads": threads * tile, **kept},
        "pivoted Cholesky, QR" if n_sparse else "Cholesky decomposition": decomposition,
        "check of the labels": {"matrix": copy or matrix, "labels left out": 16.0 * N * min(CHECKED, N), **kept},
        "weights": {"matrix": copy or matrix, "collapsed": 32.0 * data.atoms * sum(t.features for t in sizes), **kept},
    }


def _peak(memory: dict[str, dict[str, float]]) -> float:
    return max(sum(items.values()) for items in memory.values())


def _fit_steps(task: Task, sizes, seen, data: Data, n: int) -> tuple[Step, ...]:
    """Steps of a fit of all observations, or of ``n`` of them."""
    atoms, forces, stress, known = data.atoms, "forces" in data.rows, "stress" in data.rows, sum(data.rows.values())
    values, jacobian, projected, products, vectors = 0.0, 0.0, 0.0, 0.0, 0.0
    for term, t, c in zip(task.terms, sizes, seen, strict=True):
        moved = atoms * (1 + t.neighbours)
        values += described_flops([term], [t], atoms) * (1 + term.descriptor.learns)
        jacobian += jacobian_flops(term.descriptor, moved, atoms) * forces + jacobian_flops(term.descriptor, moved, atoms, 6) * stress
        projected += projection_flops(t, moved) * forces
        products += c.covariance_flops(t.features)
        vectors += 2 * c.vectors(t.features)
    steps = [
        Step("descriptors", "loops", values, pair_traffic(sizes, atoms)),
        Step("Jacobians", "loops", jacobian, vectors),
        Step("covariance of observations", "blocks", products + projected, 8.0 * known**2 * len(task.terms)),
    ]
    if not n:
        steps.append(Step("Cholesky decomposition", "factorisation", known**3 / 3, 8.0 * known**2))
        steps.append(Step("triangular solves", "loops", 4.0 * known**2, 16.0 * known**2, parallel=False))
    else:
        regression = 9.0 * n**3 + qr_flops(known, n + 1) + qr_flops(4 * n, n + 1)
        steps.append(Step("pivoted Cholesky", "loops", 1.0 * known * n**2, 4.0 * known * n**2, parallel=False))
        steps.append(Step("products for rows", "products", 2.0 * known * n**2, parallel=False))
        steps.append(Step("QR and regression", "factorisation", regression, parallel=False))
    return tuple(steps)


@prediction_work.register
def exact_prediction(process: MatrixProcess, frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """A prediction from the weights of observations."""
    return observation_prediction(process, frames, wanted, budget)


def trained_sizes(process: ObservationProcess) -> list[ObservationSizes]:
    """Sizes of what was observed, as each term's descriptor sees it."""
    seen = process.structures
    return [ObservationSizes(part.descriptor, seen.frames, seen.forces, seen.stress) for part in process.parts]


def asked_sizes(process: ObservationProcess, frames: list[Atoms], wanted: frozenset[str]) -> list[ObservationSizes]:
    """Sizes of what variances are asked of, as each term's descriptor sees it."""
    kinds = [[kind in wanted] * len(frames) for kind in ("forces", "stress")]
    return [ObservationSizes(part.descriptor, frames, *kinds) for part in process.parts]


def observation_prediction(process: ObservationProcess, frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """A prediction, with standard deviations by triangular solves."""
    terms, threads = process.parts, budget.threads
    data, sizes = Data.of(frames, {}, budget.loops.GROUP), sizes_of(terms, frames)
    trained, asked = trained_sizes(process), asked_sizes(process, frames, wanted)
    N, environments = trained[0].observations, max(float(c.m.sum(axis=0).max()) for c in trained)
    block = budget.loops.EVALUATED * 8.0 * (sum(3 * t.features + 2 * t.state for t in sizes) + 5 * environments)
    deviation, atom = 0.0, sum(t.neighbours for t in sizes) * PAIR + 200.0
    if wanted:
        k = max(float(c.k.max()) for c in asked)
        queries = sum(16.0 * t.inner * data.largest * (1 + k) for t in sizes)
        tiles = threads * max(a.tile(t.features) + c.tile(t.features) for a, c, t in zip(asked, trained, sizes, strict=True))
        atoms = 24.0 * max(min(posterior.ROWS, N * data.atoms), N * data.largest) + threads * 24.0 * ELEMENTS
        deviation = max(32.0 * N * max(1 + k, data.largest) + queries + tiles, atoms if isinstance(process, MatrixProcess) else 0.0)
    group = prediction_group(budget, threads * block + deviation + 80.0 * data.atoms, atom, data, GROUP)
    memory = {
        "prediction": {
            "groups of structures": atom * min(group, data.atoms),
            f"blocks of atoms on {threads} threads": threads * block,
            "standard deviations": deviation,
            "results": 80.0 * data.atoms,
        }
    }
    steps = _prediction_steps(terms, sizes, (asked, trained), data, wanted)
    return Work(sizes, data, N, steps, memory, Division(threads, threads, group), group)


def _prediction_steps(terms, sizes: Sequence[TermSize], seen: tuple, data: Data, wanted: frozenset[str]) -> tuple[Step, ...]:
    n, (asked, trained) = data.atoms, seen
    flops = sum(8.0 * t.features * float(a.m.sum(axis=0) @ c.m.sum(axis=0)) for t, a, c in zip(sizes, asked, trained, strict=True))
    steps = [
        Step("descriptors and their pull-back", "loops", 3 * described_flops(terms, sizes, n), 3 * pair_traffic(sizes, n)),
        Step("products with training environments", "products", flops),
    ]
    if wanted:
        rows = float(sum((1 + c.k).sum() for c in asked)) / len(asked) + n * ("energies" in wanted)
        cross = sum(a.covariance_flops(t.features, c) for t, a, c in zip(sizes, asked, trained, strict=True))
        steps.append(Step("covariance with observations", "blocks", cross))
        steps.append(Step("triangular solves", "factorisation", rows * trained[0].observations ** 2, parallel=False))
    return tuple(steps)
