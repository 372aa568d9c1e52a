"""Plans of an estimator's fit and predictions, from its parameters, or from what it learnt, and from structures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr.backends.cpu import GROUP
from soapkrr.errors import InputError
from soapkrr.kernels import Linear
from soapkrr.labels import property_values, read_labels
from soapkrr.memory import parse_memory
from soapkrr.parallel import default_threads
from soapkrr.regression.data import TrainingData
from soapkrr.regression.footprint import TermSize, neighbours
from soapkrr.regression.observation_fit import iterates, points_of_species, preconditioning_points
from soapkrr.regression.observation_model import IterativeModel
from soapkrr.regression.plan import Plan, product_rate
from soapkrr.regression.sparse_set import numbers_wanted
from soapkrr.regression.targets import observation_counts
from soapkrr.regression.terms import Term
from soapkrr.regression.work import Data, Work, sparse_fit, sparse_prediction
from soapkrr.regression.work_exact import Compositions, observation_fit, observation_prediction, property_fit, property_prediction
from soapkrr.regression.work_iterative import iterative_fit, with_deviations
from soapkrr.selectors import GivenPoints, Sites, as_selection


def plan_of(model, task: str, terms, sizes: list[TermSize], frames: list[Atoms], data: Data, work: Work, representers: int) -> Plan:
    """The table of some work."""
    return Plan(
        task=f"{task} of {type(model).__name__}",
        n_structures=data.structures,
        n_atoms=data.atoms,
        n_pairs=data.atoms * sum(t.neighbours for t in sizes),
        counted=neighbours(frames, terms[0].descriptor.r_cut)[1],
        features=tuple(t.features for t in sizes),
        representers=representers,
        rows=data.rows,
        steps=work.steps,
        memory=work.memory,
        threads=work.threads,
        group=work.group,
        memory_limit=parse_memory(model.memory_limit),
        rate=product_rate(),
    )


def data_of(frames: list[Atoms], rows: Mapping[str, int]) -> Data:
    """Sizes of structures, with the rows they give."""
    lengths = np.sort([len(atoms) for atoms in frames])
    total = np.cumsum(lengths)
    group = min(int(np.searchsorted(total, GROUP)), len(lengths) - 1)
    return Data(len(frames), int(total[-1]), int(lengths[-1]), float(total[group] / (group + 1)), rows)


def training_rows(model, frames: list[Atoms], noise) -> tuple[dict[str, int], list]:
    """{kind: number of rows} of a fit, and the labels."""
    labels = read_labels(frames, model.observations, noise)
    return observation_counts(TrainingData(frames, labels, {})), labels


def sizes_of(terms, frames: list[Atoms], points=None, ranks=None) -> list[TermSize]:
    """One for each term; neighbours are counted or estimated on the structures."""
    known = {r_cut: neighbours(frames, r_cut)[0] for r_cut in {t.descriptor.r_cut for t in terms}}
    none = [()] * len(terms)
    return [
        TermSize.of(t.descriptor, known[t.descriptor.r_cut], p, r)
        for t, p, r in zip(terms, points or none, ranks or [None] * len(terms), strict=True)
    ]


def sparse_points_of(term: Term, frames: list[Atoms], unseen: bool = False) -> np.ndarray:
    """Sparse points of each species, at most; with ``unseen`` structures those of a fit to many like them."""
    kinds = term.descriptor.kinds(np.concatenate([atoms.numbers for atoms in frames]))
    counts = np.bincount(kinds, minlength=len(term.descriptor.species))
    selection = as_selection(term.selection)
    if term.descriptor.linear_basis and isinstance(term.kernel, Linear):
        return np.where(counts, term.descriptor.n_features, 0)
    if isinstance(selection, GivenPoints) and not unseen:
        return np.bincount(kinds[selection.pick(None, 0, Sites.of(frames))], minlength=len(counts))
    return numbers_wanted(term, counts * 10**6 if unseen else counts, warn=False)


def sparse_fit_work(model, terms: list[Term], frames: list[Atoms], noise, optimize) -> tuple[Data, list[TermSize], Work]:
    """What a fit on environments takes."""
    rows, _ = training_rows(model, frames, noise)
    data, sizes = data_of(frames, rows), sizes_of(terms, frames, [sparse_points_of(t, frames) for t in terms])
    limit, threads = parse_memory(model.memory_limit), model.threads or default_threads()
    return data, sizes, sparse_fit(terms, sizes, data, threads, limit, optimize)


def sparse_prediction_work(model, frames: list[Atoms], wanted: frozenset[str]) -> tuple[list, Data, list[TermSize], Work]:
    """What a prediction with sparse environments takes."""
    terms = getattr(model, "terms_", None)
    if terms is not None:
        points, ranks = [[len(x) for x in t.points] for t in terms], [[x.shape[1] for x in t.transform] for t in terms]
    else:
        terms = model._terms()
        points, ranks = [sparse_points_of(t, frames, unseen=True) for t in terms], None
    data, sizes = data_of(frames, {}), sizes_of(terms, frames, points, ranks)
    limit, threads = parse_memory(model.memory_limit), model.threads or default_threads()
    return terms, data, sizes, sparse_prediction(terms, sizes, data, threads, limit, wanted)


def observation_fit_work(model, terms: list[Term], frames: list[Atoms], noise, n_sparse: int | None) -> tuple[Data, list[TermSize], Work]:
    """What a fit whose representers are observations takes."""
    rows, labels = training_rows(model, frames, noise)
    used = [s for s, label in enumerate(labels) if not label.empty]
    frames, labels = [frames[s] for s in used], [labels[s] for s in used]
    forces, stress = ([label.has(kind) for label in labels] for kind in ("forces", "stress"))
    data, sizes = data_of(frames, rows), sizes_of(terms, frames)
    seen = [Compositions(t.descriptor, frames, forces, stress) for t in terms]
    limit, threads = parse_memory(model.memory_limit), model.threads or default_threads()
    if n_sparse is None and iterates(model.solver, seen[0].observations):
        n = preconditioning_points(model.n_preconditioner, data.atoms) // len(terms)
        sizes = sizes_of(terms, frames, [points_of_species(c.m.sum(axis=0).astype(int), n) for c in seen])
        return data, sizes, iterative_fit(terms, sizes, seen, data, threads, limit)
    return data, sizes, observation_fit(terms, sizes, seen, data, threads, limit, n_sparse)


def observation_prediction_work(model, frames: list[Atoms], wanted: frozenset[str]) -> tuple[list, Data, list[TermSize], Work]:
    """What a prediction from a fitted model's observations takes."""
    fitted = getattr(model, "model_", None)
    if fitted is None:
        raise InputError(f"a plan of predictions needs a fitted {type(model).__name__}: their cost depends on the training data.")
    terms, seen = fitted.parts, fitted.structures
    none, some = [False] * len(frames), [True] * len(frames)
    data, sizes = data_of(frames, {}), sizes_of(terms, frames)
    trained = [Compositions(t.descriptor, seen.frames, seen.forces, seen.stress) for t in terms]
    asked = [Compositions(t.descriptor, frames, some if "forces" in wanted else none, some if "stress" in wanted else none) for t in terms]
    limit, threads = parse_memory(model.memory_limit), model.threads or default_threads()
    work = observation_prediction(terms, sizes, trained, asked, data, threads, limit, wanted)
    if wanted and isinstance(fitted, IterativeModel):
        solutions = float((1 + asked[0].k).sum()) + data.atoms * ("energies" in wanted)
        held = sizes_of(terms, seen.frames, [[len(x) for x in t.points] for t in fitted.sparse])
        work = with_deviations(work, terms, held, trained, solutions, limit)
    return terms, data, sizes, work


def property_fit_work(model, terms: list[Term], frames: list[Atoms], y) -> tuple[Data, list[TermSize], Work]:
    """What a fit of a property takes; without ``y``, the number of its values follows from the target."""
    kind = "atom" if model.target == "atom" else "structure"
    n = (sum(map(len, frames)) if kind == "atom" else len(frames)) if y is None else len(property_values(frames, y, kind)[0])
    data, sizes = data_of(frames, {model.target: n}), sizes_of(terms, frames)
    limit, threads = parse_memory(model.memory_limit), model.threads or default_threads()
    return data, sizes, property_fit(terms, sizes, data, threads, limit)


def property_prediction_work(model, frames: list[Atoms], deviation: bool) -> tuple[list, Data, list[TermSize], Work]:
    """What a prediction of a property takes."""
    fitted = getattr(model, "model_", None)
    if fitted is None:
        raise InputError(f"a plan of predictions needs a fitted {type(model).__name__}: their cost depends on the training data.")
    terms, n = fitted.parts, sum(map(len, frames)) if model.target == "atom" else len(frames)
    data, sizes = data_of(frames, {model.target: n}), sizes_of(terms, frames)
    environments = max(sum(map(len, part.sums.X)) for part in fitted.parts)
    limit, threads = parse_memory(model.memory_limit), model.threads or default_threads()
    return terms, data, sizes, property_prediction(terms, sizes, environments, len(fitted.weights), data, threads, limit, deviation)


def representers_of(sizes: list[TermSize]) -> int:
    """Sparse points of all terms."""
    return sum(sum(t.points) for t in sizes)
