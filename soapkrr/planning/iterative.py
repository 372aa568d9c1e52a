"""Operations and bytes of exact processes by conjugate gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.execution.resources import LEARNING_BYTES
from soapkrr.planning.exact import ObservationSizes, asked_sizes, observation_prediction, trained_sizes
from soapkrr.planning.flops import described_flops, design_steps, pair_traffic
from soapkrr.planning.plan import Step
from soapkrr.planning.sizes import ATOM, PAIR, Data, TermSize, check
from soapkrr.planning.work import Budget, Learning, Task, Work, fit_work, prediction_work, sizes_of
from soapkrr.regression.exact.iterative import BySize, ConjugateGradients, IterativeProcess, points_of_species

#: Products with the covariance that a solution is expected to take; fits of 1,100 to 13,233 atoms of silicon took 25 to 35.
PRODUCTS = 30


def product_steps(terms: Sequence, sizes: Sequence[TermSize], trained: Sequence[ObservationSizes], times: float) -> tuple[Step, ...]:
    """``times`` products with the covariance of the observations."""
    atoms = float(trained[0].m.sum())
    squares = sum(8.0 * t.features * float(np.square(c.m.sum(axis=0)).sum()) for t, c in zip(sizes, trained, strict=True))
    derivatives = 4 * times * described_flops(terms, sizes, atoms)
    return (
        Step(f"{times:,.0f} products with the covariance, as expected", "products", times * squares),
        Step("derivatives of descriptors in them", "loops", derivatives, 4 * times * pair_traffic(sizes, atoms)),
    )


def system_bytes(sizes: Sequence[TermSize], trained: Sequence[ObservationSizes], budget: Budget) -> dict[str, float]:
    """What a system to be solved holds; ``sizes`` with the points of the preconditioner."""
    rank, loops, threads, observations = sum(t.rank for t in sizes), budget.loops, budget.threads, trained[0].observations
    block = sum(3 * t.features + t.state for t in sizes) + 5 * loops.POINTS
    held = sum(8 * (4 * t.features + t.state) + 2 * PAIR * t.neighbours for t in sizes)
    displaced = max(t.displaced(loops.DISPLACED) for t in sizes)
    return {
        "descriptors and pairs": float(trained[0].m.sum()) * held,
        "rows of the preconditioner": 8.0 * observations * rank,
        "their Gram matrix": 8.0 * rank**2 * (threads + 2),
        f"blocks of atoms on {threads} threads": threads * (8.0 * loops.EVALUATED * block + displaced),
        "vectors": 80.0 * observations,
    }


@fit_work.register
def automatic_fit(scheme: BySize, task: Task, budget: Budget) -> Work:
    """A fit by whatever the number of observations calls for."""
    return fit_work(scheme.resolved(ObservationSizes.of(task.labelled())[0].observations), task, budget)


@fit_work.register
def iterative_fit(scheme: ConjugateGradients, task: Task, budget: Budget) -> Work:
    """A fit of all observations without their covariance matrix."""
    task = task.labelled()
    terms, data, seen = task.terms, Data.of(task.frames, task.rows, budget.loops.GROUP), ObservationSizes.of(task)
    n = scheme.points(data.atoms) // len(terms)
    sizes = sizes_of(terms, task.frames, [points_of_species(c.m.sum(axis=0).astype(int), n) for c in seen])
    labels = {"labels": ATOM * data.atoms}
    memory = {
        "kernel of the sparse points": {"matrix and eigenvectors": max(48.0 * max(t.points, default=0) ** 2 for t in sizes), **labels},
        "conjugate gradients": {**system_bytes(sizes, seen, budget), **labels},
    }
    learning = Learning.of(terms, sizes, data, budget.xp)
    least = {stage: sum(items.values()) for stage, items in memory.items()} | learning.least()
    check(budget.limit, least, "a smaller `n_preconditioner` needs less")
    taught, teachers = learning.within(budget.room, budget.threads)
    division = budget.unlimited
    if budget.limit is not None:
        division = replace(division, fillers=teachers, learning=int(taught) or LEARNING_BYTES)
    steps = _fit_steps(task, sizes, seen, data)
    return Work(sizes, data, sum(data.rows.values()), steps, learning.stage(taught, teachers) | memory, division)


def _fit_steps(task: Task, sizes: Sequence[TermSize], seen: Sequence[ObservationSizes], data: Data) -> tuple[Step, ...]:
    N, rank = float(sum(data.rows.values())), sum(t.rank for t in sizes)
    kernels = sum(9.0 * p**3 for t in sizes for p in t.points)
    return (
        Step("descriptors", "loops", 2 * described_flops(task.terms, sizes, data.atoms), 2 * pair_traffic(sizes, data.atoms)),
        Step("kernel of the sparse points", "products", kernels, parallel=False),
        *design_steps([term.descriptor for term in task.terms], sizes, data, N),
        Step("Gram matrix of the rows", "products", 2 * N * rank**2),
        Step("Cholesky decomposition", "factorisation", rank**3 / 3),
        *product_steps(task.terms, sizes, seen, PRODUCTS),
    )


@prediction_work.register
def iterative_prediction(process: IterativeProcess, frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """A prediction whose standard deviations take a solution each in place of triangular solves."""
    work = observation_prediction(process, frames, wanted, budget)
    if not wanted:
        return work
    asked, trained = asked_sizes(process, frames, wanted), trained_sizes(process)
    solutions = float((1 + asked[0].k).sum()) + work.data.atoms * ("energies" in wanted)
    held = sizes_of(process.parts, process.structures.frames, [[len(x) for x in t.points] for t in process.sparse])
    memory = {**work.memory, "standard deviations": system_bytes(held, trained, budget)}
    check(budget.limit, {stage: sum(items.values()) for stage, items in memory.items()})
    kept = tuple(step for step in work.steps if step.name not in ("covariance with observations", "triangular solves"))
    return replace(work, steps=kept + product_steps(process.parts, held, trained, PRODUCTS * solutions), memory=memory)
