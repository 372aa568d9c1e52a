"""Operations and bytes of fits and predictions on sparse environments."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from ase import Atoms

from soapkrr.execution.resources import GROUP, LEARNING_BYTES, Division
from soapkrr.planning.flops import described_flops, design_steps, pair_traffic
from soapkrr.planning.plan import Step
from soapkrr.planning.sizes import ATOM, PAIR, Data, Rows, TermSize, check, features_within
from soapkrr.planning.work import (
    Budget,
    Learning,
    Task,
    Work,
    fit_work,
    prediction_group,
    prediction_work,
    sizes_of,
    unfitted_prediction_work,
)
from soapkrr.prediction import TOTAL
from soapkrr.regression.sparse.fit import FOLDS, SparseEnvironments
from soapkrr.regression.sparse.points import numbers_wanted, row_bytes, species_counts, takes_basis
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.sparse.published import PublishedProcess
from soapkrr.regression.sparse.triangles import chunk_atoms, whitens_concurrently
from soapkrr.regression.sparse.variances import ATOMS
from soapkrr.regression.terms import Term
from soapkrr.selection.specifications import GivenPoints, Sites, as_selection

#: Noise levels of a cross-validation that are counted.
CANDIDATES = 50

#: Steps of a search for the highest evidence that are counted.
STEPS = 30


def sparse_points_of(term: Term, frames: list[Atoms], unseen: bool = False) -> np.ndarray:
    """Sparse points of each species, at most; with ``unseen`` structures those of a fit to many like them."""
    counts = species_counts(term.descriptor, frames)
    selection = as_selection(term.selection)
    if takes_basis(term):
        return np.where(counts, term.descriptor.n_features, 0)
    if isinstance(selection, GivenPoints) and not unseen:
        kinds = term.descriptor.kinds(np.concatenate([atoms.numbers for atoms in frames]))
        return np.bincount(kinds[selection.pick(None, 0, Sites.of(frames))], minlength=len(counts))
    return numbers_wanted(term, counts * 10**6 if unseen else counts, warn=False)


def representers(sizes: Sequence[TermSize]) -> int:
    """Sparse points of all terms."""
    return sum(sum(t.points) for t in sizes)


@fit_work.register
def sparse_fit(scheme: SparseEnvironments, task: Task, budget: Budget) -> Work:
    """A fit on sparse environments."""
    terms, xp, room = task.terms, budget.xp, budget.room
    data = Data.of(task.frames, task.rows, budget.loops.GROUP)
    sizes = sizes_of(terms, task.frames, [sparse_points_of(t, task.frames) for t in terms])
    rows, n_points = Rows.of(sizes, data, xp), representers(sizes)
    chunk = chunk_atoms(n_points, data.atoms)
    kept = ATOM * data.atoms + sum(_sparse_set(t) for t in sizes)
    folds = (FOLDS - 1) * rows.triangles(data.atoms) if task.optimize == "cross-validation" else 0.0
    solving = _solving(sizes, rows, data, task.optimize) + folds
    whitening = max(48.0 * max(t.points, default=0) ** 2 for t in sizes)
    learning, choice = Learning.of(terms, sizes, data, xp, copies=2), _Choice(terms, sizes, data, xp)
    least = {
        "the features of the sparse points": kept + choice.least(),
        **learning.least(),
        "the kernel matrix of the sparse points": kept + whitening,
        f"the design rows of the largest structure ({data.largest} atoms)": kept + folds + rows.least(data.largest),
        "the regression": kept + solving,
    }
    check(budget.limit, least, "fewer sparse points need less")
    spare, fillers = features_within(room - kept, max(choice.filling), max(choice.per_row) * data.atoms, budget.threads)
    taught, teachers = learning.within(room, fillers)
    used, group, chunk = rows.division(budget.threads, budget.loops.GROUP, chunk, data.largest, room - kept - folds)
    used = min(used, -(-data.atoms // chunk))
    concurrent = budget.limit is None and whitens_concurrently(n_points, budget.threads)
    memory = {
        **learning.stage(taught, teachers),
        "choice of sparse points": choice.stage(spare, fillers),
        "kernel of the sparse points": {"matrix and eigenvectors": whitening, "kept": kept},
        "design rows": {
            f"rows and triangles on {used} threads": used * rows.thread(group, chunk),
            "triangles, waiting and merged": rows.waiting(used, chunk) + folds,
            "sparse set, labels": kept,
            **({"eigenvectors found meanwhile": whitening} if concurrent else {}),
        },
        "regression": {"triangles and their QR": solving, "sparse set, labels": kept},
    }
    steps = _fit_steps(task, sizes, data, rows.columns, chunk)
    limited = {} if budget.limit is None else {"candidates": float(spare), "learning": int(taught) or LEARNING_BYTES, "concurrent": False}
    return Work(sizes, data, n_points, steps, memory, Division(used, teachers, group, chunk, **limited), group)


def _sparse_set(t: TermSize) -> float:
    """Bytes of the points and transforms of a term."""
    return 8.0 * (sum(t.points) * t.features + 2 * sum(a * b for a, b in zip(t.points, t.ranks, strict=True)))


def _solving(sizes: Sequence[TermSize], rows: Rows, data: Data, optimize: str | None) -> float:
    """Bytes of the regression."""
    R, triangles = sum(t.rank for t in sizes) + 1, rows.triangles(data.atoms)
    searched = {"cross-validation": ((FOLDS + 1) * len(data.rows) + 4) * 8.0 * R * R, "evidence": 2 * triangles, None: 0.0}[optimize]
    return searched + 2 * triangles + 32.0 * R * R


class _Choice:
    """Bytes of choosing sparse points: of each term, ``per_row`` for each environment, and ``filling`` of a thread that computes them."""

    def __init__(self, terms: Sequence[Term], sizes: Sequence[TermSize], data: Data, xp):
        self.atoms, self.wanted = data.atoms, [sum(t.points) for t in sizes]
        self.per_row = [row_bytes(t.features, term.selection, len(t.points)) for t, term in zip(sizes, terms, strict=True)]
        self.filling = [(t.values() + 16 * t.features) * data.at_once(xp) for t in sizes]

    def least(self) -> float:
        """Among as few environments as there are points."""
        return max(f + b * m for f, b, m in zip(self.filling, self.per_row, self.wanted, strict=True))

    def stage(self, spare: float, fillers: int) -> dict[str, float]:
        """{item: bytes} of the term that takes most, with ``spare`` bytes for features."""
        features = [min(b * self.atoms, max(spare, b * m)) for b, m in zip(self.per_row, self.wanted, strict=True)]
        k = int(np.argmax(features))
        computing = {f"environments computed by {fillers} threads": fillers * self.filling[k]}
        return {"features": features[k], **computing, "labels, earlier terms": ATOM * self.atoms}


def _fit_steps(task: Task, sizes: Sequence[TermSize], data: Data, k: int, chunk: int) -> tuple[Step, ...]:
    n, kinds = data.atoms, len(data.rows)
    # Farthest-point sampling, of which the triangle inequality spares about nineteen in twenty distances.
    chosen = sum(0.15 * n * t.features * max(t.points, default=0) for t in sizes)
    # A Cholesky factor and its inverse; where eigenvalues must be cut off, their vectors take some ten times as long.
    kernels = sum(p**3 for t in sizes for p in t.points)
    absorbed = sum(2.0 * n * k**2 for n in data.rows.values() if n > k)
    chunks, solving = -(-n // chunk), kinds * 2 / 3 * k**3
    searched = {"cross-validation": CANDIDATES * (FOLDS + 1) * k**3 / 3, "evidence": STEPS * (solving + k**3), None: 0.0}[task.optimize]
    return (
        Step("descriptors", "loops", 2 * described_flops(task.terms, sizes, n), 2 * pair_traffic(sizes, n)),
        Step("choice of sparse points", "loops", chosen, 8 * chosen, parallel=False),
        Step("kernel of the sparse points", "factorisation", kernels, parallel=False),
        *design_steps([term.descriptor for term in task.terms], sizes, data, kinds * k),
        Step("QR of rows", "factorisation", absorbed),
        Step("merging of triangles", "factorisation", (chunks - 1) * 2 / 3 * k**3 * kinds, parallel=False),
        Step("regression", "factorisation", solving + searched, parallel=False),
    )


@unfitted_prediction_work.register
def _unfitted(scheme: SparseEnvironments, terms, frames, wanted, budget):
    points = [sparse_points_of(t, frames, unseen=True) for t in terms]
    return _prediction(terms, sizes_of(terms, frames, points), frames, wanted, budget)


@prediction_work.register
def sparse_prediction(process: SparseProcess | PublishedProcess, frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """A prediction with a process on sparse environments."""
    points, ranks = [[len(x) for x in t.points] for t in process.terms], [[x.shape[1] for x in t.transform] for t in process.terms]
    return _prediction(process.terms, sizes_of(process.terms, frames, points, ranks), frames, wanted, budget)


def _prediction(terms: Sequence, sizes: Sequence[TermSize], frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    data, threads = Data.of(frames, {}, budget.loops.GROUP), budget.threads
    block, atom = _block_bytes(sizes, data, wanted, budget), _atom_bytes(sizes, data, wanted)
    model = 8.0 * representers(sizes) + _reductions(sizes, wanted) + 80.0 * data.atoms
    group = prediction_group(budget, threads * block + model, atom, data, GROUP)
    memory = {
        "prediction": {
            "groups of structures": atom * min(group, data.atoms),
            f"blocks of atoms on {threads} threads": threads * block,
            "model and results": model,
        }
    }
    return Work(
        sizes, data, representers(sizes), _prediction_steps(terms, sizes, data, wanted), memory, Division(threads, threads, group), group
    )


def _reductions(sizes: Sequence[TermSize], wanted: frozenset[str]) -> float:
    """Bytes of what turns kernel values into variances, of all species at once: D, what it is made from, and the transforms."""
    R, transforms = sum(t.rank for t in sizes), sum(sum(t.points) * t.rank for t in sizes)
    return 8.0 * (2 * transforms + 4 * R * R) if wanted else 0.0


def _atom_bytes(sizes: Sequence[TermSize], data: Data, wanted: frozenset[str]) -> float:
    """Bytes of each atom of a group."""
    R, points = sum(t.rank for t in sizes), [max(t.points, default=0) for t in sizes]
    atom = sum(t.neighbours for t in sizes) * PAIR + 200.0
    if wanted & {"energies", TOTAL}:
        atom += 8 * (sum(t.features for t in sizes) + 3 * R / data.smallest)
    if wanted & {"forces", "stress"}:
        atom += sum(t.values() + 24 * m for t, m in zip(sizes, points, strict=True))
    if "stress" in wanted:
        atom += 48 / data.smallest * (max(sum(t.points) for t in sizes) + 3 * R)
    return atom


def _block_bytes(sizes: Sequence[TermSize], data: Data, wanted: frozenset[str], budget: Budget) -> float:
    """Bytes of a thread that works on a block of atoms."""
    R, points, loops = sum(t.rank for t in sizes), [max(t.points, default=0) for t in sizes], budget.loops
    block = loops.EVALUATED * 8 * sum(3 * t.features + 2 * t.state + 3 * m for t, m in zip(sizes, points, strict=True))
    if wanted & {"energies", TOTAL}:
        block += loops.EVALUATED * 8 * (3 * R + sum(points))
    if "forces" in wanted:
        block += sum(t.displaced(loops.DISPLACED) + t.displaced(1) for t in sizes)
        rows = 24 * max(ATOMS, loops.DISPLACED) * (R + max(sum(t.points) for t in sizes))
        block += rows + max(8 * 8 * (t.neighbours + 1) ** 2 for t in sizes)
    if "stress" in wanted:
        block += max(6 * 8 * (2 * t.features * data.largest + 4 * data.largest**2) for t in sizes)
    return block


def prior_variances(sizes: Sequence[TermSize], data: Data, wanted: Collection[str]) -> Step:
    """Those of forces and stress, where wanted."""
    forces, stress = "forces" in wanted, "stress" in wanted
    prior = sum((24 * (1 + t.neighbours) ** 2 * forces + 48 * data.largest * stress) * t.features for t in sizes)
    return Step("prior variances of derivatives", "blocks", data.atoms * prior)


def _prediction_steps(terms: Sequence, sizes: Sequence[TermSize], data: Data, wanted: frozenset[str]) -> tuple[Step, ...]:
    n, R, points = data.atoms, sum(t.rank for t in sizes), [max(t.points, default=0) for t in sizes]
    forces, stress = "forces" in wanted, "stress" in wanted
    steps = [
        Step("descriptors and their pull-back", "loops", 3 * described_flops(terms, sizes, n), 3 * pair_traffic(sizes, n)),
        Step("products with sparse points", "products", 4 * n * sum(m * t.features for t, m in zip(sizes, points, strict=True))),
        Step("kernel values", "loops", 8 * n * sum(points), 32 * n * sum(points)),
    ]
    if "energies" in wanted:
        steps.append(Step("variances of energies", "products", 1.25 * n * sum(max(t.points, default=0) for t in sizes) ** 2))
    if forces or stress:
        rows = 3 * n * forces + 6 * data.structures * stress
        asked = data._replace(rows={kind: 0 for kind in ("forces", "stress") if kind in wanted})
        steps += design_steps([term.descriptor for term in terms], sizes, asked, rows)
        steps.append(prior_variances(sizes, data, wanted))
        steps.append(Step("variances of derivatives", "factorisation", rows * R**2))
    return tuple(steps)
