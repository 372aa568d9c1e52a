"""Operations and bytes of the stages of fits and predictions, and the blocks that a limit of memory leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from soapkrr.backends import loops
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.projection import Wrapper
from soapkrr.descriptors.soap import SOAP
from soapkrr.regression.factors import lane_atoms, whitens_beside
from soapkrr.regression.footprint import AT_ONCE, ATOM, LEARNING_BUDGET, PAIR, Rows, TermSize, check, features_within, row_bytes, usable
from soapkrr.regression.plan import Step
from soapkrr.regression.terms import Term

#: Folds of a cross-validation, and steps of a search for the highest evidence that are counted.
FOLDS, STEPS = 5, 30


class Data(NamedTuple):
    """What is fitted or predicted.

    Attributes
    ----------
    structures, atoms : how many.  largest : atoms of the largest structure.  smallest : mean number of atoms of the smallest structures
    that fill a group: they have most energies and stresses for an atom.  rows : {kind of observation: number}.
    """

    structures: int
    atoms: int
    largest: int
    smallest: float
    rows: Mapping[str, int]


class Work(NamedTuple):
    """Steps and stages of a `Plan`, and how the work is divided.

    ``threads``, ``group``, ``lane``: each thread handles groups of so many atoms, and absorbs the rows of a lane of so many.
    ``selection``, ``learning``: bytes for the features among which sparse points are chosen, and from which descriptors learn, None
    where nothing limits them.  ``filling``: threads that compute them.
    """

    steps: tuple[Step, ...]
    memory: dict[str, dict[str, float]]
    threads: int
    group: int | None = None
    lane: int | None = None
    selection: int | None = None
    learning: int | None = None
    filling: int | None = None


def value_flops(descriptor: Descriptor, pairs: float, atoms: float) -> float:
    """Of the features: expansion and power spectrum of a SOAP; ten for each feature and pair of others, a rule of thumb."""
    if isinstance(descriptor, SOAP):
        lm, n, channels = (descriptor.l_max + 1) ** 2, descriptor.n_max, descriptor.n_channels
        return pairs * (2 * lm * n + 10 * (descriptor.l_max + 1) * n + 10 * lm) + atoms * lm * channels**2
    if isinstance(descriptor, Wrapper):
        return value_flops(descriptor.descriptor, pairs, atoms) + 2 * atoms * descriptor.descriptor.n_features * descriptor.n_features
    return 10 * pairs * descriptor.n_features


def jacobian_flops(descriptor: Descriptor, pairs: float, atoms: float, directions: int = 3) -> float:
    """Of derivatives of the features of every centre by displaced atoms; with ``directions`` = 6 by strain."""
    if isinstance(descriptor, SOAP):
        lm, n, channels = (descriptor.l_max + 1) ** 2, descriptor.n_max, descriptor.n_channels
        one = 2 * lm * n * channels + 8 * descriptor.n_features
        return directions * (one * (pairs if directions == 3 else atoms) + 6 * lm * n * pairs + 2 * lm * channels**2 * atoms)
    if isinstance(descriptor, Wrapper):
        return jacobian_flops(descriptor.descriptor, pairs, atoms, directions)
    return 20 * directions * pairs * descriptor.n_features


def projection_flops(size: TermSize, pairs: float) -> float:
    """Of projecting the Jacobians of a descriptor inside another."""
    return 6 * pairs * size.inner * size.features if size.inner != size.features else 0.0


def design_steps(descriptors, sizes: Sequence[TermSize], data: Data, forces: bool, stress: bool, whiten_rows: float) -> list[Step]:
    """Derivatives and products of design rows of all atoms."""
    n, steps = data.atoms, []
    moved = [n * (1 + t.neighbours) for t in sizes]
    jacobian, products, scattered = 0.0, 0.0, 0.0
    for descriptor, t, m in zip(descriptors, sizes, moved, strict=True):
        points = np.mean([p for p in t.points if p]) if any(t.points) else 0
        jacobian += jacobian_flops(descriptor, m, n) * forces + jacobian_flops(descriptor, m, n, 6) * stress
        products += projection_flops(t, m) * forces + 2 * points * t.features * (n + 3 * m * forces + 6 * n * stress)
        scattered += points * (6 * m * forces + 12 * n * stress)
        products += 2 * whiten_rows * sum(t.points) * t.rank
    width = max(t.features for t in sizes)
    steps.append(Step("Jacobians", "loops", jacobian, 24 * width * sum(moved)))
    steps.append(Step("products for design rows", "products", products, 24 * width * sum(moved)))
    steps.append(Step("sums of rows", "loops", scattered, 8 * scattered))
    return steps


def sparse_fit(terms: list[Term], sizes: list[TermSize], data: Data, threads: int, limit: int | None, optimize: bool | str) -> Work:
    """A fit on sparse environments.

    Raises
    ------
    InputError : ``limit`` does not hold some stage, even in its smallest blocks.
    """
    room, held = usable(limit), ATOM * data.atoms
    rows, R, wanted = Rows.of(sizes, data), sum(t.rank for t in sizes) + 1, [sum(t.points) for t in sizes]
    triangles, lane = rows.triangles(data.atoms), lane_atoms(sum(wanted), data.atoms)
    searched = {"cross-validation": (FOLDS * len(data.rows) + 4) * 8.0 * R * R}.get(optimize, (2 * triangles if optimize else 0.0))
    folds = (FOLDS - 1) * triangles if optimize == "cross-validation" else 0.0
    kept = held + sum(8.0 * (sum(t.points) * t.features + 2 * sum(a * b for a, b in zip(t.points, t.ranks, strict=True))) for t in sizes)
    solving = searched + folds + 2 * triangles + 32.0 * R * R

    per_row = [row_bytes(t.features, term.selection, len(t.points)) for t, term in zip(sizes, terms, strict=True)]
    filling = [(t.values() + 16 * t.features) * at_once(data) for t in sizes]
    learning = [learning_bytes(term.descriptor, data.atoms) for term in terms]
    gram = [6 * 8.0 * min(t.inner, data.atoms) ** 2 if size else 0.0 for t, size in zip(sizes, learning, strict=True)]
    whitening = max(48.0 * max(t.points, default=0) ** 2 for t in sizes)
    least = {
        "the features of the sparse points": kept + max(f + b * m for f, b, m in zip(filling, per_row, wanted, strict=True)),
        "what the descriptor learns from": held + max(f + g for f, g in zip(filling, gram, strict=True)) + max(learning) / 8,
        "the kernel matrix of the sparse points": kept + whitening,
        f"the design rows of the largest structure ({data.largest} atoms)": kept + folds + rows.least(data.largest),
        "the regression": kept + solving,
    }
    check(limit, least, "fewer sparse points need less")
    spare, fillers = features_within(room - kept, max(filling), max(per_row) * data.atoms, threads)
    taught, teachers = features_within(room - held - max(gram), max(filling), max(learning), fillers)
    features = [min(b * data.atoms, max(spare, b * m)) for b, m in zip(per_row, wanted, strict=True)]
    used, group, lane = rows.division(threads, loops(np).GROUP, lane, data.largest, room - kept - folds)
    used = min(used, -(-data.atoms // lane))
    k = int(np.argmax(features))
    memory = {
        "choice of sparse points": {
            "features": features[k],
            f"environments computed by {fillers} threads": fillers * filling[k],
            "labels, earlier terms": held,
        },
        "kernel of the sparse points": {"matrix and eigenvectors": whitening, "kept": kept},
        "design rows": {
            f"rows and triangles on {used} threads": used * rows.thread(group, lane),
            "triangles, waiting and merged": rows.waiting(used, lane) + folds,
            "sparse set, labels": kept,
            **({"eigenvectors found beside": whitening} if limit is None and whitens_beside(sum(wanted), threads) else {}),
        },
        "regression": {"triangles and their QR": solving, "sparse set, labels": kept},
    }
    if max(learning):
        learn = {"features": taught, "Gram matrix": max(gram), f"environments computed by {teachers} threads": teachers * max(filling)}
        memory = {"learning": learn} | memory
    steps = _sparse_fit_steps(terms, sizes, data, rows.columns, lane, optimize)
    if limit is None:
        return Work(steps, memory, used, group, lane)
    return Work(steps, memory, used, group, lane, int(spare), int(taught) or None, teachers)


def at_once(data: Data) -> int:
    """Atoms whose features a thread computes at once."""
    return max(data.largest, min(AT_ONCE, data.atoms))


def learning_bytes(descriptor: Descriptor, atoms: int) -> float:
    """Features from which a descriptor learns."""
    return min(LEARNING_BUDGET, 8.0 * descriptor.n_features * atoms) if descriptor.learns else 0.0


def _sparse_fit_steps(terms, sizes, data: Data, k: int, lane: int, optimize) -> tuple[Step, ...]:
    n, descriptors = data.atoms, [term.descriptor for term in terms]
    pairs = [n * t.neighbours for t in sizes]
    values = sum(value_flops(d, p, n) for d, p in zip(descriptors, pairs, strict=True))
    steps = [Step("descriptors", "loops", 2 * values, 2 * PAIR * sum(pairs))]
    # Farthest-point sampling, of which the triangle inequality spares about nineteen in twenty distances.
    chosen = sum(0.15 * n * t.features * max(t.points, default=0) for t in sizes)
    steps.append(Step("choice of sparse points", "loops", chosen, 8 * chosen, parallel=False))
    # A Cholesky factor and its inverse; where eigenvalues must be cut off, their vectors take some ten times as long.
    kernels = sum(p**3 for t in sizes for p in t.points)
    steps.append(Step("kernel of the sparse points", "factorisation", kernels, parallel=False))
    forces, stress = "forces" in data.rows, "stress" in data.rows
    steps += design_steps(descriptors, sizes, data, forces, stress, len(data.rows) * k)
    absorbed = sum(2.0 * n * k**2 for n in data.rows.values() if n > k)
    steps.append(Step("QR of rows", "factorisation", absorbed))
    lanes = -(-n // lane)
    steps.append(Step("merging of triangles", "factorisation", (lanes - 1) * 2 / 3 * k**3 * len(data.rows), parallel=False))
    solving = len(data.rows) * 2 / 3 * k**3
    searched = {"cross-validation": 40 * (FOLDS + 1) * k**3 / 3}.get(optimize, STEPS * (solving + k**3) if optimize else 0.0)
    steps.append(Step("regression", "factorisation", solving + searched, parallel=False))
    return tuple(steps)


def qr_flops(rows: float, columns: float) -> float:
    """Of the triangle of a QR decomposition (Golub and Van Loan, section 5.2)."""
    return max(2 * columns**2 * (rows - columns / 3), 0.0)


def sparse_prediction(terms, sizes: list[TermSize], data: Data, threads: int, limit: int | None, wanted: frozenset[str]) -> Work:
    """A prediction with a model of sparse environments, with the standard deviations ``wanted``."""
    from soapkrr.potential import GROUP

    R = sum(t.rank for t in sizes)
    forces, stress, energy = (kind in wanted for kind in ("forces", "stress", "energies"))
    points = [max(t.points, default=0) for t in sizes]
    atom = sum(t.neighbours for t in sizes) * PAIR + 200.0
    block = loops(np).EVALUATED * 8 * sum(3 * t.features + 2 * t.state + 3 * m for t, m in zip(sizes, points, strict=True))
    if energy:
        atom += 8 * (sum(t.features for t in sizes) + 3 * R / data.smallest)
        block += loops(np).EVALUATED * 8 * (3 * R + sum(points))
    if forces or stress:
        atom += sum(t.values() + 24 * m for t, m in zip(sizes, points, strict=True))
    if forces:
        block += sum(t.displaced() + t.displaced(1) for t in sizes) + 24 * 8 * 3 * (R + max(map(sum, (t.points for t in sizes))))
        block += max(8 * 8 * (t.neighbours + 1) ** 2 for t in sizes)
    if stress:
        atom += 48 / data.smallest * (max(sum(t.points) for t in sizes) + 3 * R)
        block += max(6 * 8 * (2 * t.features * data.largest + 4 * data.largest**2) for t in sizes)
    fixed = (
        threads * block
        + 8.0 * sum(sum(t.points) for t in sizes)
        + 80.0 * data.atoms
        + (8.0 * sum(sum(t.points) * t.rank for t in sizes) if wanted else 0.0)
    )
    check(limit, {f"the prediction of the largest structure ({data.largest} atoms)": fixed + atom * data.largest})
    group = max(data.largest, int(min(GROUP, (usable(limit) - fixed) / atom)))
    memory = {
        "prediction": {
            "groups of structures": atom * min(group, data.atoms),
            f"blocks of atoms on {threads} threads": threads * block,
            "model and results": fixed - threads * block,
        }
    }
    n, descriptors = data.atoms, [term.descriptor for term in terms]
    values = sum(value_flops(d, n * t.neighbours, n) for d, t in zip(descriptors, sizes, strict=True))
    steps = [
        Step("descriptors and their pull-back", "loops", 3 * values, 3 * PAIR * n * sum(t.neighbours for t in sizes)),
        Step("products with sparse points", "products", 4 * n * sum(m * t.features for t, m in zip(sizes, points, strict=True))),
        Step("kernel values", "loops", 8 * n * sum(points), 32 * n * sum(points)),
    ]
    if energy:
        steps.append(
            Step("variances of energies", "factorisation", n * (R**2 + 2 * sum(m * t.rank for t, m in zip(sizes, points, strict=True))))
        )
    if forces or stress:
        steps += design_steps(descriptors, sizes, data, forces, stress, 3 * n * forces + 6 * data.structures * stress)
        prior = sum((24 * (1 + t.neighbours) ** 2 * forces + 48 * data.largest * stress) * t.features for t in sizes)
        steps.append(Step("prior variances of derivatives", "blocks", n * prior))
        steps.append(Step("variances of derivatives", "factorisation", (3 * n * forces + 6 * data.structures * stress) * R**2))
    return Work(tuple(steps), memory, threads, group)
