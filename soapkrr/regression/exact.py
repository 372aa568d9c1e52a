"""Exact Gaussian process and kernel ridge regression on energies, forces and stress: every observation is a representer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.baselines import Baseline, baseline_energies, reference_energies, split_baseline, subtract, total
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import ModelFileError, require_positive
from soapkrr.kernels import Kernel
from soapkrr.labels import read_labels
from soapkrr.parallel import serial_blas
from soapkrr.potential import Potential
from soapkrr.prediction import Prediction
from soapkrr.regression.collapsed import CollapsedPart
from soapkrr.regression.evidence import exact_evidence, maximise
from soapkrr.regression.observation_model import ObservationModel, exact
from soapkrr.regression.observed import Group, Layout, covariance, observe
from soapkrr.regression.sparse_gp import check_structures, checked_noise, in_canonical_order
from soapkrr.regression.sparse_set import learnt
from soapkrr.regression.targets import KINDS, observation_kinds, observation_targets, subset
from soapkrr.regression.terms import Term, as_terms
from soapkrr.structures import Batch, as_frames

#: Observations from which hyperparameters are found: each step of the optimiser costs N³.
OPTIMISE_ON = 1500


class GaussianProcess(Potential):
    """Exact Gaussian process on total energies, forces and stress, for small sets of data.

    cov(L, L′) = Σ_ij L L′ δ²κ(x_i, x_j) for every pair of observations, through the mixed second derivative of the kernel; the weights
    (K + Σ)⁻¹y collapse onto the training environments, so that prediction costs about two sparse points for each of them. Memory
    8·N² bytes and N³/3 operations for N observations (Rasmussen and Williams 2006, algorithm 2.1).

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term` whose contributions add (their ``n_sparse`` and ``selection`` are not used).
    kernel : a kernel; None with a list of terms.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002.
    signal : prior standard deviation δ of an atom's energy, eV.
    baseline : reference energies and prior means, as in `SparseGP`.
    threads : threads of fit and predict; None takes every core this process may use.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  n_observations_ : number of observations.  log_likelihood_ : log evidence of the data.

    Raises
    ------
    InputError : a parameter or structure cannot be used.
    """

    def __init__(
        self,
        descriptor: Descriptor | list[Term],
        kernel: Kernel | None = None,
        *,
        noise: Mapping[str, float] | None = None,
        signal: float = 3.0,
        baseline: Mapping[str, float] | str | None | Baseline | list = None,
        threads: int | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.noise = noise
        self.signal = signal
        self.baseline = baseline
        self.threads = threads

    def fit(self, frames: list[Atoms], y=None, *, optimize: bool = False, progress: bool = False) -> GaussianProcess:
        """Fit to the labels that ``frames`` carry; ``y`` is ignored.

        ``optimize``: raise the evidence over noise levels and signals, from those given; on a random part of the structures where
        there are more than `OPTIMISE_ON` observations.
        """
        noise, terms, frames = self._noise(), self._terms(), as_frames(frames)
        check_structures(frames, [t.descriptor for t in terms])
        terms = [replace(t, descriptor=learnt(t.descriptor, frames, self.threads, progress)) for t in terms]
        labels = read_labels(frames)
        reference, means = split_baseline(self.baseline)
        frames, labels = in_canonical_order(frames, subtract(means, frames, labels))
        references = reference_energies(frames, labels, reference)
        forces, stress = [label.forces is not None for label in labels], [label.stress is not None for label in labels]
        with serial_blas():
            groups = [observe(t.descriptor, frames, forces, stress, self.threads) for t in terms]
            if optimize:
                noise, terms = self._optimised(terms, frames, labels, references, noise)
            targets, sigma = observation_targets(frames, labels, references, noise)
            K = total_covariance(terms, groups, self.threads)
            self.model_, self.log_likelihood_ = exact(terms, groups, K, targets, sigma, self.threads)
        self.trained_on_ = (frames, forces, stress)
        self.noise_, self.signals_ = noise, tuple(t.signal for t in terms)
        self.reference_energies_, self.n_observations_ = references, len(self.model_.picked)
        return self

    def state(self) -> dict:
        """See `Potential.state`; the training structures are kept, for the variances."""
        frames, forces, stress = self.trained_on_
        model = self.model_
        return {
            "reference_energies": self.reference_energies_,
            "noise": self.noise_,
            "log_likelihood": self.log_likelihood_,
            "structures": {
                "sizes": np.array([len(atoms) for atoms in frames]),
                "numbers": np.concatenate([atoms.numbers for atoms in frames]),
                "positions": np.concatenate([atoms.positions for atoms in frames]),
                "cells": np.array([atoms.cell.array for atoms in frames]),
                "pbc": np.array([atoms.pbc for atoms in frames]),
                "forces": np.array(forces),
                "stress": np.array(stress),
            },
            "parts": [part.state() for part in model.parts],
            "picked": model.picked,
            "factor": model.factor,
        }

    def restore(self, state: dict) -> None:
        """See `Potential.restore`."""
        self._terms()  # raises where descriptor and kernel are no term
        parts = [CollapsedPart.restore(part) for part in state["parts"]]
        frames, forces, stress = stored = _structures(state["structures"])
        with serial_blas():
            groups = [observe(part.descriptor, frames, forces, stress, self.threads) for part in parts]
        model = ObservationModel(parts, groups, state["picked"], state["factor"], threads=self.threads)
        if model.factor.shape != (len(model.picked),) * 2 or model.picked.max() >= Layout(groups[0]).size:
            raise ModelFileError(f"the arrays do not fit together: {len(model.picked)} observations, factor {model.factor.shape}.")
        self.model_, self.trained_on_ = model, stored
        self.noise_, self.log_likelihood_ = state["noise"], state["log_likelihood"]
        self.signals_, self.n_observations_ = tuple(p.signal for p in parts), len(model.picked)
        self.reference_energies_ = state["reference_energies"]

    def _optimised(self, terms, frames, labels, references, noise) -> tuple[dict[str, float], list[Term]]:
        """Noise levels and terms of highest evidence."""
        part = subset(labels, OPTIMISE_ON)
        frames, labels = [frames[i] for i in part], [labels[i] for i in part]
        forces, stress = [label.forces is not None for label in labels], [label.stress is not None for label in labels]
        y, unit = observation_targets(frames, labels, references, dict.fromkeys(noise, 1.0))
        kinds = observation_kinds(frames, labels)
        known = np.isfinite(unit)
        K = [covariance(t.kernel, observe(t.descriptor, frames, forces, stress, self.threads), threads=self.threads) for t in terms]
        K = [k[np.ix_(known, known)] for k in K]
        names = [KINDS[i] for i in np.unique(kinds[known])]
        index = np.searchsorted([KINDS.index(n) for n in names], kinds[known])

        def evidence(levels, signals):
            value, by_noise, by_scale = exact_evidence(K, y[known], index, unit[known], np.array([levels[n] for n in names]), signals)
            return value, dict(zip(names, by_noise, strict=True)), by_scale

        found = maximise(evidence, {n: noise[n] for n in names}, [t.signal for t in terms])
        return {**noise, **found.noise}, [replace(t, signal=s) for t, s in zip(terms, found.signals, strict=True)]

    def _noise(self) -> dict[str, float]:
        return checked_noise(self.noise)

    def _terms(self) -> list[Term]:
        if not isinstance(self.descriptor, Descriptor):
            return as_terms(self.descriptor)
        return [Term(self.descriptor, self.kernel, signal=self.signal)]

    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        references = baseline_energies(self.reference_energies_, batch.numbers, batch.structure + first)
        mean = total(split_baseline(self.baseline)[1], batch, first)
        return self.model_.predict(batch, first, mean._replace(energies=mean.energies + references), wanted)


def _structures(state: dict) -> tuple[list[Atoms], list[bool], list[bool]]:
    """Training structures, and which of their derivatives were observed, from a model file."""
    ends = np.cumsum(state["sizes"])
    bounds = zip(ends - state["sizes"], ends, state["cells"], state["pbc"], strict=True)
    frames = [Atoms(state["numbers"][a:b], state["positions"][a:b], cell=cell, pbc=pbc) for a, b, cell, pbc in bounds]
    return frames, state["forces"].tolist(), state["stress"].tolist()


def total_covariance(terms: list[Term], groups: list[list[Group]], threads: int | None) -> np.ndarray:
    """Σ δ²K over terms, of all observations."""
    total = None
    for term, mine in zip(terms, groups, strict=True):
        K = covariance(term.kernel, mine, threads=threads)
        K *= term.signal**2
        total = K if total is None else np.add(total, K, out=total)
    return total


class KernelRidge(GaussianProcess):
    """Kernel ridge regression of energies, forces and stress: the mean of `GaussianProcess` with one regularisation.

    (K + α W²)⁻¹y with W = √N for an energy, ``force_weight``⁻¹ for a force component and ``stress_weight``⁻¹ for a stress component.

    Parameters
    ----------
    descriptor, kernel, baseline, threads : as in `GaussianProcess`.
    alpha : regularisation, eV² at unit signal.
    force_weight : Å⁻¹… relative weight of force components; stress_weight : likewise of stress components.
    """

    def __init__(
        self,
        descriptor,
        kernel=None,
        *,
        alpha: float = 1e-6,
        force_weight: float = 0.1,
        stress_weight: float = 1.0,
        baseline=None,
        threads: int | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.alpha = alpha
        self.force_weight = force_weight
        self.stress_weight = stress_weight
        self.baseline = baseline
        self.threads = threads

    signal = 1.0

    def _noise(self) -> dict[str, float]:
        require_positive(alpha=self.alpha, force_weight=self.force_weight, stress_weight=self.stress_weight)
        level = np.sqrt(self.alpha)
        return {"energy": level, "forces": level / self.force_weight, "stress": level / self.stress_weight}
