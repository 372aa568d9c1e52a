"""A sparse posterior on fewer of its points, without the data.

The weights of the features of some points, w_Z = A w with A Aᵀ = 1, have the prior N(0, 1), and given them the others are expected to be
w = Aᵀ w_Z. What the data say of w, triangles of [Φ | y], therefore says [Φ Aᵀ | y] of w_Z: rows Φ Aᵀ = φ_Z are those that a fit with these
points would have made, so the posterior is that fit's. Energies that points left out could express are in k − φ_Z·φ_Z: error bars grow by
what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends, linear
from soapkrr.regression.evidence import log_likelihood
from soapkrr.regression.fit import Fit
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.terms import SparseTerm

#: Part of a point's squared length that those chosen before do not span, below which it adds nothing but rounding.
SPANNED = 1e-22


@dataclass(frozen=True)
class Fewer:
    """A fitted sparse process and what its data said, to be put on fewer points.

    Attributes
    ----------
    process : the posterior.  triangles : {kind: triangle of [Φ | y]}.  counts, noise : {kind: number of rows}, {kind: σ}.
    log_likelihood : log evidence.  tolerance : of `linear.whitening`.
    """

    process: SparseProcess
    triangles: Mapping[str, np.ndarray]
    counts: Mapping[str, int]
    noise: Mapping[str, float]
    log_likelihood: float
    tolerance: float

    @property
    def posterior(self) -> linear.Posterior:
        """Of the weights of all features."""
        return self.process.posterior

    def _sets(self) -> Iterator[tuple[int, int, SparseTerm, slice]]:
        """(term, kind of centres, the term, columns of their features)."""
        first = 0
        for t, term in enumerate(self.process.terms):
            for s in range(len(term.points)):
                yield t, s, term, slice(first + int(term.columns[s]), first + int(term.columns[s + 1]))
            first += term.rank

    def order(self, most: int) -> list[tuple[int, int, int]]:
        """(term, kind of centres, point) in the order in which the mean needs them, up to ``most``.

        Orthogonal least squares (Chen, Cowan and Grant 1991, doi 10.1109/72.80341): the next point is the one with which the
        minimised objective, |R(w̄ − w)|² more than its minimum, becomes least. Points that those before span come last.
        """
        R, points, columns = self.posterior.factor, [], []
        for t, s, term, place in self._sets():
            points += [(t, s, q) for q in range(len(term.points[s]))]
            columns.append(R[:, place] @ point_features(term, s).T)
        B = np.ascontiguousarray(np.concatenate(columns, axis=1).T)
        B /= np.linalg.norm(B, axis=1, keepdims=True)
        left, left_square, chosen = R @ self.posterior.mean, np.ones(len(B)), []
        while len(chosen) < min(most, len(B)):
            gain = np.where(left_square > SPANNED, np.square(B @ left) / np.maximum(left_square, SPANNED), -1.0)
            q = int(np.argmax(gain))
            if gain[q] < 0:
                break
            unit = B[q] / np.linalg.norm(B[q])
            along = B @ unit
            B -= along[:, None] * unit
            left, left_square[q] = left - (unit @ left) * unit, 0.0
            left_square = np.where(left_square > 0, np.einsum("qr,qr->q", B, B), 0.0)
            chosen.append(points[q])
        return [*chosen, *(point for point in points if point not in set(chosen))][:most]

    def fit(self, chosen: list[tuple[int, int, int]]) -> Fit:
        """The posterior on the ``chosen`` points."""
        terms, projections = [list(term.points) for term in self.process.terms], []
        rank = len(self.posterior.mean)
        transforms = [[np.zeros((0, 0))] * len(term.points) for term in self.process.terms]
        for t, s, term, place in self._sets():
            own = sorted(q for of_term, kind, q in chosen if (of_term, kind) == (t, s))
            Z = terms[t][s] = np.ascontiguousarray(term.points[s][own])
            if own:
                T = transforms[t][s] = linear.whitening(term.kernel(Z), self.tolerance)
                projections.append(np.zeros((rank, T.shape[1])))
                projections[-1][place] = point_features(term, s)[own].T @ T
        A = np.concatenate(projections, axis=1)
        reduced = {kind: _reduced(table, A) for kind, table in self.triangles.items()}
        posterior = linear.solve(reduced, {kind: self.noise[kind] for kind in reduced})
        evidence = log_likelihood(posterior, self.counts, self.noise)
        # What the likelihood has beside the rows stays as it is.
        evidence += self.log_likelihood - log_likelihood(self.posterior, self.counts, self.noise)
        made = zip(self.process.terms, terms, transforms, strict=True)
        process = SparseProcess(tuple(replace(t, points=tuple(p), transform=tuple(T)) for t, p, T in made), posterior)
        return Fit(process, self.noise, self.counts, evidence, reduced)


def point_features(term: SparseTerm, s: int) -> np.ndarray:
    """(M_s, r_s) features of the sparse points of a kind of centres, for unit signal."""
    return term.kernel(term.points[s]) @ term.transform[s]


def _reduced(table: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Triangle of [Φ A | y] from one of [Φ | y]."""
    rows = np.asfortranarray(np.column_stack([table[:, :-1] @ A, table[:, -1]]))
    return linear.triangle(rows) if len(rows) >= rows.shape[1] else rows


def left_out_errors(fit: Fit) -> dict[str, float]:
    """{kind: root mean square error of left-out labels, in units of the noise}, by generalised cross-validation from the triangles.

    √(|y − Φw̄|²/n) / (1 − tr H/n), H the hat matrix of the rows of the kind (Golub, Heath and Wahba 1979, doi
    10.1080/00401706.1979.10489751).
    """
    posterior, errors = fit.process.posterior, {}
    inverse = backends.of(posterior.factor).dense.inverse_triangle(posterior.factor)
    for kind, table in fit.triangles.items():
        n, misfit = fit.counts[kind], table[:, -1] - table[:, :-1] @ posterior.mean
        freedom = float(np.square(table[:, :-1] @ inverse).sum()) / fit.noise[kind] ** 2
        if n > freedom:
            errors[kind] = float(np.sqrt(misfit @ misfit / n)) / (1 - freedom / n) / fit.noise[kind]
    return errors
