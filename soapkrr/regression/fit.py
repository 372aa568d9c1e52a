"""What is fitted, and what a fit returns; a scheme leads from one to the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from soapkrr.errors import InputError, ModelFileError
from soapkrr.execution.resources import Resources
from soapkrr.labels import KINDS
from soapkrr.regression import stored
from soapkrr.regression.data import TrainingData
from soapkrr.regression.front import Front, restored_front
from soapkrr.regression.process import Process
from soapkrr.regression.score import Score
from soapkrr.regression.sparse.kept import KeptRows
from soapkrr.regression.terms import Term


@dataclass(frozen=True)
class Problem:
    """Terms to fit to data.

    Attributes
    ----------
    noise : {kind of observation: σ}: eV per atom, eV/Å, eV/Å³.
    optimize : how noise levels and signals are found: ``"evidence"``, ``"cross-validation"``, or None: they are those given.
    score : what noise levels found by cross-validation make small.
    keep : whether design rows are kept on a disk until the `Fit` goes, for a leave-out after it.
    """

    terms: tuple[Term, ...]
    data: TrainingData
    noise: Mapping[str, float]
    optimize: str | None
    keep: bool = False
    score: Score = field(default_factory=Score)


@dataclass(frozen=True)
class Fit:
    """What is learnt.

    Attributes
    ----------
    process : the posterior.  noise : {kind: σ} in use.  counts : {kind: number of observations}.
    evidence : log marginal likelihood, NaN where it is not known.
    triangles : {kind: triangle of the design rows and targets [Φ | y]} where there are design rows.
    front : what noise levels trade, where a cross-validation found them.
    rows : kernel rows of all structures, where `Problem.keep` asked for them and a disk holds them.
    """

    process: Process
    noise: Mapping[str, float]
    counts: Mapping[str, int]
    evidence: float
    triangles: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: KeptRows | None = None
    front: Front | None = None


def restored_fit(process: Process, state: Mapping) -> Fit:
    """A fit from the state of a model file and its process; raises `ModelFileError` where something in it cannot be."""
    noise, triangles = (stored.mapping(state[name], name) for name in ("noise", "triangles"))
    if not set(noise) | set(triangles) <= set(KINDS):
        raise ModelFileError(f"noise and triangles are of {sorted({*noise, *triangles})}, expected some of {KINDS}.")
    return Fit(
        process,
        {kind: stored.number(level, f"noise[{kind!r}]", positive=True) for kind, level in noise.items()},
        stored.counts(state["n_observations"]),
        stored.number(state["log_likelihood"], "log_likelihood", unknown=True),
        {kind: stored.array(rows, f"triangles.{kind}", shape=(None, None)) for kind, rows in triangles.items()},
        front=restored_front(state.get("front")),
    )


class Scheme(ABC):
    """A way to fit: which representers, and how the weights are solved for."""

    #: Ways of `Problem.optimize`.
    optimizers: tuple[str, ...] = ("evidence",)

    #: Why the workers of a client cannot fit; None where they can.
    local: str | None = "the covariance of all observations is one matrix in one process; a `SparseGP` of environments is fitted on workers"

    @abstractmethod
    def fit(self, problem: Problem, resources: Resources) -> Fit:
        """The posterior of the data."""

    def resolved(self, n_observations: int) -> Scheme:
        """The scheme to use for so many observations."""
        return self

    def optimizer(self, optimize: bool | str) -> str | None:
        """The way to optimise that ``optimize`` means: True is the evidence."""
        if not (isinstance(optimize, bool) or optimize in self.optimizers):
            raise InputError(f"`optimize` must be True, False or one of {self.optimizers}, received {optimize!r}.")
        return "evidence" if optimize is True else optimize or None
