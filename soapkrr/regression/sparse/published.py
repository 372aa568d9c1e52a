"""A potential whose coefficients are known, and nothing of the fit they come from: the mean of a sparse process without its posterior."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends
from soapkrr.errors import InputError, ModelFileError
from soapkrr.lazy import cached_property
from soapkrr.linear import Posterior
from soapkrr.regression import stored
from soapkrr.regression.evaluate import evaluate
from soapkrr.regression.process import Deviations, Process
from soapkrr.regression.sparse.posterior import SparsePart
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Mean


@dataclass(frozen=True, eq=False)
class PublishedProcess(Process):
    """Terms with coefficients of their sparse points, E_i = Σ_q a_q κ(x_i, x_q), a in eV.

    Attributes
    ----------
    terms : without transform.  weights : per term, per species (M_s,) coefficients.
    """

    terms: tuple[SparseTerm, ...]
    weights: tuple[tuple[np.ndarray, ...], ...]
    threads: int | None = None

    given = ()

    @property
    def descriptors(self):
        """See `Process.descriptors`."""
        return tuple(t.descriptor for t in self.terms)

    @property
    def signals(self):
        """See `Process.signals`."""
        return tuple(t.signal for t in self.terms)

    @cached_property
    def posterior(self) -> Posterior:
        """The coefficients, without covariance."""
        return Posterior(np.concatenate([w for of_term in self.weights for w in of_term]), np.zeros((0, 0)), np.nan, np.nan)

    @cached_property
    def parts(self) -> list[SparsePart]:
        """The terms with their coefficients."""
        return [SparsePart(term, list(weights)) for term, weights in zip(self.terms, self.weights, strict=True)]

    def representers(self) -> list[dict[str, int]]:
        """{symbol: number of sparse points} of each term."""
        return [dict(zip(t.descriptor.kind_names, map(len, t.points), strict=True)) for t in self.terms]

    def evaluate(self, batch, wanted):
        """See `Process.evaluate`; the mean alone."""
        if wanted:
            _refuse("standard deviations", f"`uncertainty` asks for {sorted(wanted)}")
        return Mean(*backends.host(tuple(evaluate(self.parts, batch, self.threads)))), Deviations()

    def covariance(self, functionals):
        """None is known: raises `InputError`."""
        _refuse("covariances", "a joint posterior was asked for")

    def explained(self, functionals):
        """None is known: raises `InputError`."""
        _refuse("covariances", "gains of labels were asked for")

    def influence(self, functionals, data, noise):
        """None is known: raises `InputError`."""
        _refuse("training data", "influences were asked for")

    def samples(self, n, seed):
        """None can be drawn: raises `InputError`."""
        _refuse("covariances", "samples were asked for")

    def _on(self, xp, threads):
        weights = tuple(tuple(backends.moved(xp, of_term)) for of_term in self.weights)
        return PublishedProcess(tuple(t.moved(xp) for t in self.terms), weights, threads)

    def state(self):
        """See `Process.state`."""
        return {"terms": [replace(t, transform=()).state() for t in self.terms], "weights": [list(w) for w in self.weights]}

    @classmethod
    def restore(cls, state, threads):
        """See `Process.restore`."""
        weights = tuple(stored.arrays(w, "weights") for w in state["weights"])
        terms = []
        for term, of_term in zip(state["terms"], weights, strict=True):
            empty = [np.zeros((len(x), 0)) for x in stored.arrays(term["points"], "points")]
            terms.append(SparseTerm.restore({**term, "transform": empty}))
            if [w.shape for w in of_term] != [(len(x),) for x in terms[-1].points]:
                raise ModelFileError("the arrays do not fit together: weights and sparse points differ in number.")
        if not terms:
            raise ModelFileError("the file has no terms.")
        return cls(tuple(terms), weights, threads)


def _refuse(what: str, why: str):
    raise InputError(
        f"{why}, but the file of this potential holds coefficients and no {what}: `load_gap` with `refit`=True, or a fit, has."
    )
