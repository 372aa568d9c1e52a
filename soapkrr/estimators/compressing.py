"""A fitted sparse model on fewer of its points: as few as errors, or as a time, allow."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase import Atoms

from soapkrr.errors import InputError, require_positive
from soapkrr.regression.fit import Fit
from soapkrr.regression.sparse.fewer import Fewer, left_out_errors
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.structures import as_frames

if TYPE_CHECKING:
    from soapkrr.estimators.sparse_gp import SparseGP

#: Times a prediction is measured; the least counts.
REPEATS = 5


@dataclass(frozen=True)
class Compression:
    """What became of a model: numbers of sparse points, {kind: error of left-out labels over its noise} by generalised cross-validation,
    and, where it was measured, µs per atom of a prediction, before and after.
    """

    points: tuple[int, int]
    before: dict[str, float]
    after: dict[str, float]
    microseconds_per_atom: tuple[float, float] | None = None

    @property
    def growth(self) -> float:
        """By which part the error that grew most grew."""
        return max((self.after[kind] / self.before[kind] - 1 for kind in self.before), default=0.0)

    def __str__(self) -> str:
        errors = [f"{kind} {self.before[kind]:.3g} → {self.after[kind]:.3g}" for kind in self.before]
        timed = self.microseconds_per_atom
        lines = [f"{self.points[0]} → {self.points[1]} sparse points", f"errors of left-out labels, in units of noise: {', '.join(errors)}"]
        return "\n".join(lines + ([f"{timed[0]:.3g} → {timed[1]:.3g} µs per atom"] if timed else []))


def compressed(model: SparseGP, tolerance: float | None, microseconds_per_atom: float | None, frames) -> SparseGP:
    """See `SparseGP.compress`."""
    if (tolerance is None) == (microseconds_per_atom is None):
        raise InputError("give `tolerance`, by how much errors may grow, or `microseconds_per_atom`, one of the two.")
    limits: dict[str, Any] = {"tolerance": tolerance} if tolerance is not None else {"microseconds_per_atom": microseconds_per_atom}
    require_positive(**limits)
    if not isinstance(model.process_, SparseProcess) or not model.triangles_:
        raise InputError(f"there is nothing to compress: {type(model.process_).__name__} has no sparse points that are environments.")
    fewer = Fewer(
        model.process_,
        model.triangles_,
        {kind: model.n_observations_[kind] for kind in model.triangles_},
        model.noise_,
        model.log_likelihood_,
        model.fitted_parameters_["tolerance"],
    )
    search = _Search(model, fewer)
    if tolerance is not None:
        return search.within(tolerance)
    if frames is None:
        raise InputError("`microseconds_per_atom` needs `frames`, structures whose prediction is timed.")
    return search.faster(float(limits["microseconds_per_atom"]), as_frames(frames))


class _Search:
    """Models on the first n points of an order."""

    def __init__(self, model: SparseGP, fewer: Fewer):
        self.model, self.fewer = model, fewer
        self.n_all = sum(term.n_points for term in fewer.process.terms)
        self.order = fewer.order(self.n_all)
        self.before = left_out_errors(Fit(model.process_, fewer.noise, fewer.counts, 0.0, fewer.triangles))

    def fit(self, n: int) -> tuple[Fit, Compression]:
        """The posterior on n points, and what that changed."""
        fit = self.fewer.fit(self.order[:n])
        return fit, Compression((self.n_all, n), self.before, left_out_errors(fit))

    def made(self, fit: Fit, compression: Compression) -> SparseGP:
        """The fitted model; what was learnt from left-out structures of the larger one is not known of it."""
        model: Any = copy.copy(self.model)
        model._set_fitted(fit, self.model.reference_energies_)
        model.left_out_errors_, model.compression_ = {}, compression
        return model

    def within(self, tolerance: float) -> SparseGP:
        """As few points as let no error grow by more."""
        low, high, found = 0, len(self.order), self.fit(len(self.order))
        while high - low > max(1, len(self.order) // 50):
            middle = (low + high) // 2
            tried = self.fit(middle)
            low, high, found = (low, middle, tried) if tried[1].growth <= tolerance else (middle, high, found)
        return self.made(*found)

    def faster(self, limit: float, frames: list[Atoms]) -> SparseGP:
        """As many points as a prediction within the limit allows, µs per atom; time is close to linear in their number."""
        n_atoms, few = sum(map(len, frames)), max(len(self.order) // 20, 1)
        all_time, least = (_time(model.predict, frames) / n_atoms for model in (self.model, self.made(*self.fit(few))))
        if least > limit:
            raise InputError(
                f"`microseconds_per_atom` {limit:g}: with {few} sparse points these structures take {least:.3g}, which is the descriptor's "
                "time; fit with fewer channels (`OptimalRadial`), a smaller `l_max` or `r_cut`."
            )
        n = len(self.order) if all_time <= limit else int(few + (limit - least) / (all_time - least) * (self.n_all - few))
        while True:
            fit, compression = self.fit(max(min(n, len(self.order)), few))
            model = self.made(fit, compression)
            taken = _time(model.predict, frames) / n_atoms
            if taken <= limit or n <= few:
                break
            n = max(int(0.9 * n), few)
        timed = Compression(compression.points, compression.before, compression.after, (all_time, taken))
        return self.made(fit, timed)


def _time(function: Callable, *arguments) -> float:
    """Least µs that a call takes."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times[1:])
