"""Exact fits of a scalar property of structures or atoms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr import linear
from soapkrr.baselines import split_baseline
from soapkrr.errors import InputError
from soapkrr.execution.resources import Resources
from soapkrr.labels import property_values
from soapkrr.lazy import cached_property
from soapkrr.regression.evidence import exact_evidence, maximise
from soapkrr.regression.exact.cholesky import solve_exact
from soapkrr.regression.scalar.posterior import ScalarPart, ScalarProcess
from soapkrr.regression.scalar.sums import Sums, bearer, covariance, owners
from soapkrr.regression.sparse.points import learnt
from soapkrr.regression.terms import Term
from soapkrr.structures import species_name


@dataclass(frozen=True, eq=False)
class ScalarData:
    """Structures and what is to be learnt of their property.

    Attributes
    ----------
    values : (n_values,) less Σ w_i e(z_i).  references : e {symbol: value}.
    """

    frames: list[Atoms]
    target: str
    values: np.ndarray
    references: dict[str, float]

    @classmethod
    def of(cls, frames: list[Atoms], y, target: str, baseline) -> ScalarData:
        """From values ``y``, or the name of a property, of structures or atoms; ``baseline`` as in `PropertyGP`."""
        return cls(frames, target, *_less_references(frames, y, target, baseline))

    @cached_property
    def unit(self) -> np.ndarray:
        """(n_values,) noise of each value over the noise level: √N of an extensive property."""
        return np.sqrt([len(atoms) for atoms in self.frames]) if self.target == "extensive" else np.ones(len(self.values))


@dataclass(frozen=True)
class ScalarFit:
    """What is learnt: the process, its noise level and the log marginal likelihood."""

    process: ScalarProcess
    noise: float
    evidence: float


def fit_scalar(terms: list[Term], data: ScalarData, noise: float, optimize: bool, resources: Resources) -> ScalarFit:
    """The exact process of a property; with ``optimize``, noise and signals are those of highest evidence."""
    threads = resources.threads
    terms = [replace(t, descriptor=learnt(t.descriptor, data.frames, resources)) for t in terms]
    sums = [Sums.of(t.descriptor, data.frames, data.target) for t in terms]
    K = [covariance(t.kernel, s, s, threads, resources.division.elements) for t, s in zip(terms, sums, strict=True)]
    if optimize:
        noise, terms = _optimised(K, data, noise, terms)
    for t, k in zip(terms, K, strict=True):
        k *= t.signal**2
    total = reduce(lambda a, b: np.add(a, b, out=a), K)
    L, half, evidence = solve_exact(total, data.values, noise * data.unit, threads)
    parts = [ScalarPart(t.descriptor, t.kernel, t.signal, s) for t, s in zip(terms, sums, strict=True)]
    return ScalarFit(ScalarProcess(data.target, parts, data.references, linear.backward(L, half), L), noise, evidence)


def _less_references(frames: list[Atoms], y, target: str, baseline) -> tuple[np.ndarray, dict[str, float]]:
    """Values less Σ w_i e(z_i), and e by symbol: given, or fitted by least squares."""
    if y is None:
        raise InputError(f"`y` must hold the values of the property, or its name, with `target`={target!r}.")
    values, _ = property_values(frames, y, bearer(target))
    reference, means = split_baseline(baseline)
    if means or not (reference in (None, "least-squares") or isinstance(reference, Mapping)):
        raise InputError(f"`baseline` must be a mapping, 'least-squares' or None with `target`={target!r}, received {baseline!r}.")
    species, kind = np.unique(np.concatenate([atoms.numbers for atoms in frames]), return_inverse=True)
    owner, weight = owners(frames, target)
    rows = np.zeros((len(values), len(species)))
    np.add.at(rows, (owner, kind), weight)
    if isinstance(reference, Mapping):
        missing = [species_name(z) for z in species if species_name(z) not in reference]
        unknown = [symbol for symbol in reference if symbol not in atomic_numbers]
        if missing or unknown or not np.isfinite(list(reference.values())).all():
            raise InputError(f"`baseline` must give a finite value for every species: missing {missing}, not elements {unknown}.")
        references = {symbol: float(e) for symbol, e in reference.items()}
    else:
        scale = 1 / rows.sum(axis=1)
        fit = np.linalg.lstsq(scale[:, None] * rows, scale * values, rcond=1e-10)[0]
        references = {species_name(z): float(e) for z, e in zip(species, fit, strict=True)}
    return values - rows @ [references[species_name(z)] for z in species], references


def _optimised(K: list[np.ndarray], data: ScalarData, noise: float, terms: list[Term]) -> tuple[float, list[Term]]:
    """Noise and terms of highest evidence, within bounds relative to the values."""
    y, unit = data.values, data.unit
    scale = np.sqrt(np.mean(np.square(y / unit))) or 1.0
    bounds = {"property": (1e-6 * scale, 1e2 * scale), "signal": (1e-3 * scale, 1e3 * scale)}
    kinds = np.zeros(len(y), dtype=np.int64)

    def evidence(levels, signals):
        value, by_noise, by_scale = exact_evidence(K, y, kinds, unit, np.array([levels["property"]]), signals)
        return value, {"property": by_noise[0]}, by_scale

    found = maximise(evidence, {"property": noise}, [t.signal for t in terms], bounds)
    return found.noise["property"], [replace(t, signal=s) for t, s in zip(terms, found.signals, strict=True)]
