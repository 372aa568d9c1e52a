"""Operations and bytes of exact processes by conjugate gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soapkrr.backends import loops
from soapkrr.regression.footprint import ATOM, PAIR, TermSize, check, features_within, usable
from soapkrr.regression.plan import Step
from soapkrr.regression.terms import Term
from soapkrr.regression.work import Data, Work, at_once, design_steps, learning_bytes, value_flops
from soapkrr.regression.work_exact import Compositions

#: Products with the covariance that a solution is expected to take; fits of 1,100 to 13,233 atoms of silicon took 25 to 35.
PRODUCTS = 30


def product_steps(
    terms: Sequence, sizes: Sequence[TermSize], trained: Sequence[Compositions], atoms: int, times: float
) -> tuple[Step, ...]:
    """``times`` products with the covariance of observations of ``atoms`` environments."""
    pairs = [atoms * t.neighbours for t in sizes]
    values = sum(value_flops(term.descriptor, p, atoms) for term, p in zip(terms, pairs, strict=True))
    squares = sum(8.0 * t.features * float(np.square(c.m.sum(axis=0)).sum()) for t, c in zip(sizes, trained, strict=True))
    expected = f"{times:,.0f} products with the covariance"
    return (
        Step(f"{expected}, as expected", "products", times * squares),
        Step("derivatives of descriptors in them", "loops", 4 * times * values, 4 * times * PAIR * sum(pairs)),
    )


def system_bytes(sizes: Sequence[TermSize], observations: int, atoms: int, threads: int) -> dict[str, float]:
    """What a system to be solved holds; ``sizes`` with the points of the preconditioner."""
    rank = sum(t.rank for t in sizes)
    block = sum(3 * t.features + t.state for t in sizes) + 5 * loops(np).POINTS
    return {
        "descriptors and pairs": atoms * sum(8 * (4 * t.features + t.state) + 2 * PAIR * t.neighbours for t in sizes),
        "rows of the preconditioner": 8.0 * observations * rank,
        "their Gram matrix": 8.0 * rank**2 * (threads + 2),
        f"blocks of atoms on {threads} threads": threads * (8.0 * loops(np).EVALUATED * block + max(t.displaced() for t in sizes)),
        "vectors": 80.0 * observations,
    }


def iterative_fit(terms: list[Term], sizes: list[TermSize], seen: list[Compositions], data: Data, threads: int, limit: int | None) -> Work:
    """A fit of all observations without their covariance matrix.

    Raises
    ------
    InputError : ``limit`` does not hold the descriptors and the rows of the preconditioner.
    """
    held, rank = ATOM * data.atoms, sum(t.rank for t in sizes)
    memory = {
        "kernel of the sparse points": {
            "matrix and eigenvectors": max(48.0 * max(t.points, default=0) ** 2 for t in sizes),
            "labels": held,
        },
        "conjugate gradients": {**system_bytes(sizes, seen[0].observations, data.atoms, threads), "labels": held},
    }
    learning = max(learning_bytes(term.descriptor, data.atoms) for term in terms)
    gram = max(6 * 8.0 * min(t.inner, data.atoms) ** 2 for t in sizes) if learning else 0.0
    filling = max(t.values() * at_once(data) for t in sizes)
    least = {stage: sum(items.values()) for stage, items in memory.items()}
    least["what the descriptor learns from"] = held + gram + filling + learning / 8
    check(limit, least, "a smaller `n_preconditioner` needs less")
    taught, teachers = features_within(usable(limit) - held - gram, filling, learning, threads)
    if learning:
        memory = {"learning": {"features": taught, "Gram matrix": gram, "environments": teachers * filling, "labels": held}} | memory
    N, forces, stress = float(sum(data.rows.values())), "forces" in data.rows, "stress" in data.rows
    values = sum(value_flops(term.descriptor, data.atoms * t.neighbours, data.atoms) for term, t in zip(terms, sizes, strict=True))
    steps = (
        Step("descriptors", "loops", 2 * values, 2 * PAIR * data.atoms * sum(t.neighbours for t in sizes)),
        Step("kernel of the sparse points", "products", sum(9.0 * p**3 for t in sizes for p in t.points), parallel=False),
        *design_steps([term.descriptor for term in terms], sizes, data, forces, stress, N),
        Step("Gram matrix of the rows", "products", 2 * N * rank**2),
        Step("Cholesky decomposition", "factorisation", rank**3 / 3),
        *product_steps(terms, sizes, seen, data.atoms, PRODUCTS),
    )
    return Work(steps, memory, threads, learning=None if limit is None else int(taught) or None, filling=teachers)


def with_deviations(work: Work, terms, sizes: list[TermSize], trained: list[Compositions], solutions: float, limit: int | None) -> Work:
    """A prediction whose standard deviations take so many ``solutions`` in place of triangular solves.

    Raises
    ------
    InputError : ``limit`` does not hold the system that is solved.
    """
    atoms = int(trained[0].m.sum())
    memory = {**work.memory, "standard deviations": system_bytes(sizes, trained[0].observations, atoms, work.threads)}
    check(limit, {stage: sum(items.values()) for stage, items in memory.items()})
    kept = tuple(step for step in work.steps if step.name not in ("covariance with observations", "triangular solves"))
    return work._replace(steps=kept + product_steps(terms, sizes, trained, atoms, PRODUCTS * solutions), memory=memory)
