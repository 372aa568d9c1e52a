"""Averages over molecular dynamics, with the error of the potential by reweighting over samples of its posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from soapkrr.display import html_lines
from soapkrr.errors import InputError, require_positive
from soapkrr.observables.number import CERTAIN, SAMPLES, Number, Result
from soapkrr.observables.source import Points, Source, as_source
from soapkrr.structures import as_frames

#: Part of the structures that count, at least, for weights to mean anything.
FEWEST = 0.1

#: Blocks of consecutive structures, whose means say how far the average is from that of an endless run.
BLOCKS = 10


@dataclass(frozen=True, eq=False, repr=False)
class Average(Result):
    """An average, ``numbers["average"]``, and what its error is made of.

    Attributes
    ----------
    numbers : {"average": `Number`}, whose std is what the potential is uncertain of.
    mean, std : (m,) the same of all components of vector values; std None of a calculator.
    sampling : (m,) standard error of the finite run, by the means of `BLOCKS` (10) blocks.
    effective : (n,) part of the structures that count for each sample of the posterior, (Σw)²/(N Σw²).
    """

    numbers: Mapping[str, Number]
    mean: np.ndarray
    std: np.ndarray | None
    sampling: np.ndarray
    effective: np.ndarray

    def __str__(self) -> str:
        run = f"from a run of finite length ± {self.sampling[0]:.2g}"
        if not len(self.effective):
            return f"{super().__str__()}\n{run}"
        part = f"weights rest on {100 * np.median(self.effective):.0f} % of the structures (median over {len(self.effective)} samples)"
        return f"{super().__str__()}\n{run}; {part}"

    def _repr_html_(self) -> str:
        return html_lines(str(self).splitlines())

    def plot(self, ax=None):
        """Vector values with their band, a single one with its bar; see `Result.plot`."""
        from soapkrr.plot.observables import curve

        if len(self.mean) == 1:
            return super().plot(ax)
        return curve(np.arange(len(self.mean)), self.mean, self.std, xlabel="component", ylabel="average", ax=ax)


def average(model, frames: Sequence[Atoms], values, temperature: float, *, n: int = 100, unit: str = "", seed: int = 0) -> Average:
    """Canonical average of a property of structures, with the error that the potential makes.

    ``frames`` come from dynamics at ``temperature`` on the model itself. Of sample s of the posterior, whose energy is E_s, the average is
    ⟨A⟩_s = Σ w A / Σ w with w = exp(−(E_s − E)/kT): no dynamics are run again (Imbalzano et al. 2021, doi 10.1063/5.0036522). Calibrated
    bars stretch E_s − E by the ratio of calibrated to posterior standard deviations of energies (`Number`).

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    frames : N structures, in the order of the run, some hundreds at most: their energies are drawn jointly, which takes N² covariances.
    values : (N,) or (N, m) A of each.  temperature : K.
    n : samples.  unit : of the values.  seed : of the samples.

    Raises
    ------
    InputError : the shapes do not fit, or there are fewer than 20 structures.

    Notes
    -----
    Where few structures carry the weights of a sample (`effective`) the average has left the run; the number is flagged below a tenth.
    """
    source, frames, A = as_source(model), as_frames(frames), np.asarray(values, dtype=float)
    require_positive(temperature=temperature)
    if len(frames) < 2 * BLOCKS or A.shape[:1] != (len(frames),) or A.ndim > 2 or not np.isfinite(A).all():
        raise InputError(
            f"`values` must be finite, one row for each of at least {2 * BLOCKS} `frames`, received {A.shape} for {len(frames)}."
        )
    A = A.reshape(len(A), -1)
    mean, beta = A.mean(axis=0), 1 / (units.kB * temperature)
    blocks = np.array([block.mean(axis=0) for block in np.array_split(A, BLOCKS)])
    sampling = blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
    if source.certain:
        number = Number("average", float(mean[0]), unit, None, None, CERTAIN, None, source, {})
        return Average({"average": number}, mean, None, sampling, np.ones(0))
    points, ratios = source.predict(frames), source.ratios(frames, ["energy"])
    drawn = _draws(source, points, n, seed)
    raw, (calibrated, effective) = _reweighted(drawn, A, beta)[0], _reweighted(ratios["energy"] * drawn, A, beta)
    std = calibrated.std(axis=0, ddof=1)
    (linear,) = points.observables(mean[:1], energy=(-beta * (A[:, 0] - mean[0]) / len(A))[None])
    flag = "" if np.median(effective) > FEWEST else f"weights rest on {100 * np.median(effective):.0f} % of the structures"
    first = Number("average", float(mean[0]), unit, float(std[0]), float(raw.std(axis=0, ddof=1)[0]), SAMPLES, linear, source, ratios, flag)
    return Average({"average": first}, mean, std, sampling, effective)


def _draws(source: Source, points: Points, n: int, seed: int) -> np.ndarray:
    """(n, N) changes of the energies, drawn from their joint posterior: whole potentials lack what no weights of sparse points hold."""
    covariance = source.model.posterior(points.observables(points.energy, energy=np.eye(len(points.frames)))).covariance
    values, vectors = np.linalg.eigh(covariance)
    return np.random.default_rng(seed).standard_normal((n, len(values))) * np.sqrt(np.maximum(values, 0.0)) @ vectors.T


def _reweighted(change: np.ndarray, A: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """(n, m) averages with energies changed by (n, N), and the part of the structures that counts."""
    logs = -beta * change
    w = np.exp(logs - logs.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    return w @ A, 1 / (w**2).sum(axis=1) / A.shape[0]
