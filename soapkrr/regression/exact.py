"""Exact Gaussian process and kernel ridge regression on energies, forces and stress: every observation is a representer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr import linear
from soapkrr.baselines import baseline_energies, reference_energies
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.kernels import Kernel
from soapkrr.labels import read_labels
from soapkrr.parallel import serial_blas
from soapkrr.potential import Potential
from soapkrr.prediction import Prediction
from soapkrr.regression.collapsed import CollapsedPart
from soapkrr.regression.evidence import exact_evidence, maximise
from soapkrr.regression.mean import evaluate
from soapkrr.regression.observed import Group, Layout, block_covariance, covariance, observe
from soapkrr.regression.sparse_gp import checked_noise
from soapkrr.regression.targets import KINDS, observation_kinds, observation_targets, subset
from soapkrr.regression.terms import Term, as_terms
from soapkrr.structures import Batch, as_frames

#: Observations from which hyperparameters are found: each step of the optimiser costs N³.
OPTIMISE_ON = 1500

logger = logging.getLogger(__name__)


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
    baseline : reference energies, as in `SparseGP`.
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
        signal: float = 1.0,
        baseline: Mapping[str, float] | str | None = None,
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
        Batch.from_atoms(frames)
        labels = read_labels(frames)
        references = reference_energies(frames, labels, self.baseline)
        forces, stress = [label.forces is not None for label in labels], [label.stress is not None for label in labels]
        with serial_blas():
            groups = [observe(t.descriptor, frames, forces, stress, self.threads) for t in terms]
            if optimize:
                noise, terms = self._optimised(terms, frames, labels, references, noise)
            targets, sigma = observation_targets(frames, labels, references, noise)
            K = sum(t.signal**2 * covariance(t.kernel, g, threads=self.threads) for t, g in zip(terms, groups, strict=True))
            factor, weights, evidence = solve_observations(K, targets, sigma, self.threads)
        self.noise_ = noise
        self.parts_ = [CollapsedPart.collapse(t, g, weights) for t, g in zip(terms, groups, strict=True)]
        self.groups_, self.factor_, self.known_ = groups, factor, np.isfinite(sigma)
        self.reference_energies_, self.log_likelihood_, self.n_observations_ = references, evidence, int(self.known_.sum())
        return self

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
        references = baseline_energies(self.reference_energies_, batch.numbers)
        energies, forces, strain = evaluate(self.parts_, batch, first, self.threads)
        energies = energies + references
        per_atom = batch.offsets[1:-1]
        return Prediction(
            energy=np.bincount(batch.structure, energies, minlength=len(batch)),
            energies=np.split(energies, per_atom),
            forces=np.split(forces, per_atom),
            stress=strain / batch.volumes[:, None],
            **self._deviations(batch, wanted),
        )

    def _deviations(self, batch: Batch, wanted: frozenset[str]) -> dict:
        """Standard deviations asked for."""
        frames = [Atoms(batch.numbers[a:b], batch.positions[a:b], cell=c, pbc=p) for a, b, c, p in _bounds(batch)]
        std: dict = {}
        if "energy" in wanted:
            std["energy_std"] = np.array([self._std(atoms)[0] for atoms in frames])
            std["energies_std"] = [self._atom_std(atoms) for atoms in frames]
        if "forces" in wanted:
            std["forces_std"] = [self._std(atoms, forces=True)[1:].reshape(-1, 3) for atoms in frames]
        if "stress" in wanted:
            std["stress_std"] = np.array([self._std(a, stress=True)[1:] if a.pbc.all() else np.full(6, np.nan) for a in frames])
        return std

    def _std(self, atoms: Atoms, forces: bool = False, stress: bool = False) -> np.ndarray:
        """(1 + k,) posterior standard deviations of the energy and the derivatives of one structure."""
        return self._posterior_std([observe(p.descriptor, [atoms], [forces], [stress], self.threads) for p in self.parts_])

    def _atom_std(self, atoms: Atoms) -> np.ndarray:
        """(n_atoms,) posterior standard deviations of the atoms' energies, each atom taken as a structure of its own."""
        return self._posterior_std([_single_atoms(p.descriptor, atoms) for p in self.parts_])

    def _posterior_std(self, queries: list[list[Group]]) -> np.ndarray:
        cross, prior = 0.0, 0.0
        for part, query, trained in zip(self.parts_, queries, self.groups_, strict=True):
            cross = cross + part.signal**2 * covariance(part.kernel, query, trained, self.threads)[:, self.known_]
            prior = prior + part.signal**2 * _variances(part.kernel, query)
        half = linear.forward(self.factor_, cross.T)
        return np.sqrt(np.maximum(prior - np.einsum("no,no->o", half, half), 0.0))


def _bounds(batch: Batch):
    return zip(batch.offsets, batch.offsets[1:], batch.cells, batch.pbc, strict=False)


def _single_atoms(descriptor: Descriptor, atoms: Atoms) -> list[Group]:
    """Groups in which every atom stands alone, in the order of the atoms."""
    batch = Batch.from_atoms([atoms])
    env = descriptor.environments(batch, batch.pairs(descriptor.r_cut))
    groups, d = [], env.X.shape[1]
    for s in np.unique(env.pairs.kinds):
        members = np.flatnonzero(env.pairs.kinds == s)
        counts = [len(members) if t == s else 0 for t in range(len(descriptor.species))]
        X = [env.X[members][:, None] if n else np.zeros((len(members), 0, d)) for n in counts]
        groups.append(Group(X, [np.zeros((*x.shape, 0)) for x in X], members, []))
    return groups


def _variances(kernel: Kernel, groups: list[Group]) -> np.ndarray:
    """Prior variances of every observation of the groups, `Layout` order; unit signal."""
    layout = Layout(groups)
    out = np.empty(layout.size)
    for group in groups:
        for s in range(len(group)):
            own = block_covariance(kernel, group, s, group, slice(s, s + 1))[:, 0]
            out[layout.rows(group, slice(s, s + 1)).ravel()] = np.diagonal(own)
    return out


def solve_observations(K: np.ndarray, y: np.ndarray, sigma: np.ndarray, threads: int | None):
    """Cholesky factor of K + Σ over the known observations, weights of all (zero where unknown), and the log evidence; K is overwritten."""
    known = np.isfinite(sigma)
    if not known.all():
        K = K[np.ix_(known, known)]
    diagonal = K.reshape(-1)[:: len(K) + 1]
    diagonal += sigma[known] ** 2
    try:
        L = linear.cholesky(K, threads)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the covariance of the observations is not positive definite ({error}); raise `noise`.") from error
    half = linear.forward(L, y[known])
    weights = np.zeros(len(y))
    weights[known] = linear.backward(L, half)
    evidence = -0.5 * half @ half - np.log(np.diagonal(L)).sum() - 0.5 * len(half) * np.log(2 * np.pi)
    return L, weights, float(evidence)


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
