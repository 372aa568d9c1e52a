"""The work of a fit or a prediction: its steps and stages, and the division that a limit of memory leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

from ase import Atoms

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.execution.memory import parse_memory
from soapkrr.execution.resources import Division
from soapkrr.labels import Labels
from soapkrr.planning.plan import Plan, Step, product_rate
from soapkrr.planning.sizes import ATOM, Data, TermSize, check, features_within, learning_bytes, neighbours, usable
from soapkrr.regression.targets import observation_counts
from soapkrr.regression.terms import Term
from soapkrr.threads import default_threads


class Budget(NamedTuple):
    """What work may take: the library of its arrays, threads, and bytes (None: no limit)."""

    xp: object
    threads: int
    limit: int | None

    @classmethod
    def of(cls, device: str, threads: int | None, memory_limit: int | str | None) -> Budget:
        """From the parameters of an estimator."""
        xp = backends.library(device)
        return cls(xp, backends.threads(xp, threads or default_threads()), parse_memory(memory_limit))

    @property
    def room(self) -> float:
        """Bytes that formulas may count up to."""
        return usable(self.limit)

    @property
    def loops(self):
        """The loops that work is done by, with the sizes of their blocks."""
        return backends.loops(self.xp)

    @property
    def unlimited(self) -> Division:
        """How work is divided where memory is no matter."""
        return Division.unlimited(self.xp, self.threads)


class Task(NamedTuple):
    """What is to be fitted: terms, structures, their labels, and how hyperparameters are found."""

    terms: Sequence[Term]
    frames: list[Atoms]
    labels: list[Labels]
    optimize: str | None

    @property
    def rows(self) -> dict[str, int]:
        """{kind: number of rows}."""
        return observation_counts(self.labels)

    def labelled(self) -> Task:
        """Without structures that have no label."""
        used = [s for s, label in enumerate(self.labels) if not label.empty]
        return self._replace(frames=[self.frames[s] for s in used], labels=[self.labels[s] for s in used])


@dataclass(frozen=True)
class Work:
    """What work takes, and how it is divided.

    Attributes
    ----------
    sizes : of the terms.  data : what is fitted or predicted.  representers : at most.
    steps : the operations.  memory : {stage: {item: bytes}} of what stages hold at once.
    division : of the work.  group : atoms that each thread handles at once, None where the work is not divided so.
    scratch : bytes that wait on a disk.
    """

    sizes: Sequence[TermSize]
    data: Data
    representers: int
    steps: tuple[Step, ...]
    memory: Mapping[str, Mapping[str, float]]
    division: Division
    group: int | None = None
    scratch: float = 0.0

    def plan(self, task: str, frames: list[Atoms], descriptors: Sequence[Descriptor], limit: int | None) -> Plan:
        """The table of it."""
        return Plan(
            task=task,
            n_structures=self.data.structures,
            n_atoms=self.data.atoms,
            n_pairs=self.data.atoms * sum(t.neighbours for t in self.sizes),
            counted=neighbours(frames, descriptors[0].r_cut)[1],
            features=tuple(t.features for t in self.sizes),
            representers=self.representers,
            rows=self.data.rows,
            steps=self.steps,
            memory=self.memory,
            threads=self.division.threads,
            group=self.group,
            memory_limit=limit,
            rate=product_rate(),
            scratch=self.scratch,
        )


class Learning(NamedTuple):
    """What descriptors learn from.

    Attributes
    ----------
    size : bytes of the features.  gram : of their Gram matrix.  filling : of a thread that computes them.  held : of what is there besides.
    """

    size: float
    gram: float
    filling: float
    held: float

    @classmethod
    def of(cls, terms: Sequence[Term], sizes: Sequence[TermSize], data: Data, xp, copies: int = 0) -> Learning:
        """The descriptor that learns from most, with so many ``copies`` of the features while they are computed."""
        each = [learning_bytes(term.descriptor, data.atoms) for term in terms]
        gram = [6 * 8.0 * min(t.inner, data.atoms) ** 2 if size else 0.0 for t, size in zip(sizes, each, strict=True)]
        filling = max((t.values() + 8 * copies * t.features) * data.at_once(xp) for t in sizes)
        return cls(max(each), max(gram), filling, ATOM * data.atoms)

    def least(self) -> dict[str, float]:
        """The stage and the least that it needs."""
        return {"what the descriptor learns from": self.held + self.gram + self.filling + self.size / 8}

    def within(self, room: float, threads: int) -> tuple[float, int]:
        """Bytes of features for which there is room, and threads that compute them."""
        return features_within(room - self.held - self.gram, self.filling, self.size, threads)

    def stage(self, taught: float, fillers: int) -> dict[str, dict[str, float]]:
        """What it holds; nothing where no descriptor learns."""
        if not self.size:
            return {}
        computing = {f"environments computed by {fillers} threads": fillers * self.filling}
        return {"learning": {"features": taught, "Gram matrix": self.gram, **computing, "labels": self.held}}


def sizes_of(terms: Sequence, frames: list[Atoms], points=None, ranks=None) -> list[TermSize]:
    """One for each term; neighbours are counted or estimated on the structures."""
    known = {r_cut: neighbours(frames, r_cut)[0] for r_cut in {t.descriptor.r_cut for t in terms}}
    none = [()] * len(terms)
    return [
        TermSize.of(t.descriptor, known[t.descriptor.r_cut], p, r)
        for t, p, r in zip(terms, points or none, ranks or [None] * len(terms), strict=True)
    ]


def prediction_group(budget: Budget, fixed: float, atom: float, data: Data, most: int) -> int:
    """Atoms predicted at once, each taking ``atom`` bytes beside what is ``fixed``.

    Raises
    ------
    InputError : the limit does not hold the largest structure.
    """
    check(budget.limit, {f"the prediction of the largest structure ({data.largest} atoms)": fixed + atom * data.largest})
    return max(data.largest, int(min(most, (budget.room - fixed) / atom)))


@singledispatch
def fit_work(scheme, task: Task, budget: Budget) -> Work:
    """What a fit by a `Scheme` takes.

    Raises
    ------
    InputError : the limit does not hold some stage, even in its smallest blocks; the message says what would be enough.
    """
    raise TypeError(f"nothing is known of the cost of a fit by {type(scheme).__name__}.")


@singledispatch
def prediction_work(process, frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """What a prediction by a `Process` with the standard deviations ``wanted`` takes.

    Raises
    ------
    InputError : the limit does not hold the prediction of the largest structure.
    """
    raise TypeError(f"nothing is known of the cost of a prediction by {type(process).__name__}.")


@singledispatch
def unfitted_prediction_work(scheme, terms: Sequence[Term], frames: list[Atoms], wanted: frozenset[str], budget: Budget) -> Work:
    """What a prediction takes once many structures like these are fitted by a `Scheme`."""
    raise InputError("a plan of predictions needs a fitted model here: their cost depends on the training data.")
