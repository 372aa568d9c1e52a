"""What noise levels trade in an exact process: every structure left out, for any levels, of the same prior covariance.

With P = (K + Σ)⁻¹, a = P y and P_ii the block of structure i, its labels are predicted without it with errors P_ii⁻¹ a_i (Rasmussen and
Williams 2006, section 5.4.2). K is that of the process, and so are the relative weights of labels of a kind; a candidate costs O(n³).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError
from soapkrr.labels import KINDS
from soapkrr.regression.exact.covariance import total_covariance
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.front import Front
from soapkrr.regression.score import Score
from soapkrr.regression.sparse.cross_validation import NoiseSearch

#: Observations up to which this takes a minute or less, and candidates of the descent.
MOST, CANDIDATES = 3000, 20


class LeftOut:
    """Errors of left-out structures of an exact process with other noise levels.

    Parameters
    ----------
    noise : {kind: σ} of the process.
    """

    def __init__(self, process: ExactProcess, noise: Mapping[str, float]):
        layout, picked = process.structures.layout, process.picked
        self.K = total_covariance(process.parts, process.compositions, process.threads, picked)
        self.y, self.kind = process.targets, layout.kinds[picked]
        lower = np.tril(process.factor)
        variances = np.maximum(np.einsum("ij,ij->i", lower, lower) - np.diagonal(self.K), 0.0)
        self.unit = np.sqrt(variances) / np.array([noise[kind] for kind in KINDS])[self.kind]
        structure = np.repeat(np.arange(len(layout.sizes)), layout.lengths.sum(axis=1))[picked]
        self.blocks = [np.flatnonzero(structure == s) for s in np.unique(structure)]
        alone = np.array([len(atoms) == 1 and not atoms.pbc.any() for atoms in process.structures.frames])
        self.counted = ~(alone[structure] & (self.kind == 0))  # the others are measured by these
        self.kinds = [kind for k, kind in enumerate(KINDS) if (self.counted & (self.kind == k)).any()]

    def errors(self, noise: Mapping[str, float]) -> dict[str, float]:
        """Root mean square error of each kind: of energies ΔE/√N, as they are weighted; raises `LinAlgError` where K + Σ is singular."""
        levels = np.array([noise.get(kind, np.nan) for kind in KINDS])
        C = self.K.copy()
        C.reshape(-1)[:: len(C) + 1] += np.square(levels[self.kind] * self.unit)
        P = backends.of(C).dense.inverse_from_cholesky(linear.cholesky(C))
        P += np.tril(P, -1).T
        a, errors = P @ self.y, np.empty_like(self.y)
        for at in self.blocks:
            errors[at] = np.linalg.solve(P[np.ix_(at, at)], a[at]) / self.unit[at]
        own = {kind: self.counted & (self.kind == KINDS.index(kind)) for kind in self.kinds}
        return {kind: float(np.sqrt(np.mean(errors[mine] ** 2))) for kind, mine in own.items()}


def traded(process: ExactProcess, noise: Mapping[str, float]) -> Front:
    """The front around the ``noise`` of a process, {kind: σ}, which is the chosen one: what each kind could have alone, and a balance.

    Raises
    ------
    InputError : there are too many observations, or the process does not state what it was fitted to.
    """
    if len(process.factor) > MOST:
        raise InputError(
            "`pareto` of an exact process inverts a matrix of all observations for every choice of noise, expected at most "
            f'{MOST}, received {len(process.factor)}: fit a `SparseGP` with `optimize="cross-validation"`.'
        )
    if process.targets is None:
        raise InputError("the model does not state what it was fitted to, as files of earlier versions do not; fit it again.")
    search = NoiseSearch(LeftOut(process, noise))
    own = tuple(float(noise[kind]) for kind in search.kinds)
    search.errors(own)
    start = search.descend(own, Score().cost, CANDIDATES)
    for kind in search.kinds if len(search.kinds) > 1 else ():
        search.favour(start, kind)
    return Front.of(search.tried, own)
