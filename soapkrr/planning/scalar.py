"""Operations and bytes of fits and predictions of scalar properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ase import Atoms

from soapkrr.execution.resources import GROUP, Division
from soapkrr.planning.flops import described_flops, pair_traffic
from soapkrr.planning.plan import Step
from soapkrr.planning.sizes import ATOM, Data, check
from soapkrr.planning.work import Budget, Work, prediction_group, prediction_work, sizes_of
from soapkrr.regression.scalar.posterior import ScalarProcess
from soapkrr.regression.scalar.sums import ELEMENTS
from soapkrr.regression.terms import Term


def scalar_fit(terms: Sequence[Term], frames: list[Atoms], rows: dict[str, int], budget: Budget) -> Work:
    """A fit of a property; ``rows``: {target: number of its values}. Its ``group`` is of kernel values between atoms.

    Raises
    ------
    InputError : the limit does not hold the covariance of the values.
    """
    data, sizes = Data.of(frames, rows, budget.loops.GROUP), sizes_of(terms, frames)
    N = sum(data.rows.values())
    matrix, features = 8.0 * N * N * len(terms), 8.0 * data.atoms * sum(t.features for t in sizes)
    kept = {"features": features, "labels": ATOM * data.atoms}
    filling = max(t.values() for t in sizes) * max(GROUP, data.largest)
    rest = matrix + sum(kept.values())
    one = 24.0 * data.largest * data.atoms
    check(budget.limit, {"features": filling + 3 * features, f"the covariance of {N} values": rest + one}, "or fit fewer values")
    threads = int(max(1, min(budget.threads, (budget.room - rest) / one)))
    elements = int(min(ELEMENTS, (budget.room - rest) / (24.0 * threads)))
    tile = max(one, 24.0 * min(elements, float(data.atoms) ** 2))
    memory = {
        "features": {"being computed": filling + 2 * features, **kept},
        "covariance": {"matrix": matrix, f"kernel values on {threads} threads": threads * tile, **kept},
        "Cholesky decomposition": {"matrix": matrix, **kept},
    }
    steps = (
        Step("descriptors", "loops", described_flops(terms, sizes, data.atoms), pair_traffic(sizes, data.atoms), parallel=False),
        Step("kernel of environments", "products", 2.0 * data.atoms**2 * sum(t.features for t in sizes)),
        Step("kernel values", "loops", 5.0 * data.atoms**2 * len(terms), 24.0 * data.atoms**2 * len(terms)),
        Step("Cholesky decomposition", "factorisation", N**3 / 3, 8.0 * N**2),
    )
    return Work(sizes, data, N, steps, memory, replace(budget.unlimited, threads=threads, elements=elements), elements)


@prediction_work.register
def scalar_prediction(process: ScalarProcess, frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """A prediction of a property, with its standard deviation if anything is ``wanted``."""
    terms, values, threads = process.parts, len(process.weights), budget.threads
    environments = max(sum(map(len, part.sums.X)) for part in terms)
    n = sum(map(len, frames)) if process.target == "atom" else len(frames)
    data, sizes = Data.of(frames, {process.target: n}, budget.loops.GROUP), sizes_of(terms, frames)
    atom = max(t.values() for t in sizes) + 32.0 * max(t.features for t in sizes) + (32.0 * values if wanted else 0.0)
    fixed = (threads if wanted else 1) * 24.0 * min(ELEMENTS, float(data.largest) * environments) + 16.0 * data.atoms
    group = prediction_group(budget, fixed, atom, data, GROUP)
    memory = {"prediction": {"groups of structures": atom * min(group, data.atoms), "kernel values": fixed}}
    products = 2.0 * data.atoms * environments * sum(t.features for t in sizes)
    steps = [
        Step("descriptors", "loops", described_flops(terms, sizes, data.atoms), pair_traffic(sizes, data.atoms), parallel=False),
        Step("products with training environments", "products", products, parallel=False),
    ]
    if wanted:
        steps.append(Step("triangular solves", "factorisation", 1.0 * n * values**2, parallel=False))
    return Work(sizes, data, values, tuple(steps), memory, Division(threads, threads, group), group)
