"""Sparse Gaussian-process regression of per-atom energies on energies, forces and stress."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr import linear
from soapkrr.baselines import Baseline, baseline_energies, reference_energies, split_baseline, subtract, total
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.kernels import Kernel
from soapkrr.labels import Labels, read_labels
from soapkrr.parallel import serial_blas, thread_map
from soapkrr.potential import Potential
from soapkrr.prediction import Prediction
from soapkrr.progress import track
from soapkrr.regression.design import DesignRows
from soapkrr.regression.posterior import SparseModel
from soapkrr.regression.sparse_set import sparse_points
from soapkrr.regression.terms import SparseTerm, Term, as_terms
from soapkrr.structures import Batch, as_frames, split_by_atoms

logger = logging.getLogger(__name__)

#: Kinds of observation and the noise each has when `noise` does not name it: eV/atom, eV/Å, eV/Å³.
DEFAULT_NOISE = {"energy": 0.002, "forces": 0.05, "stress": 0.002}


class SparseGP(Potential):
    """Gaussian process on sparse environments: E = Σ_i [e(z_i) + Σ_q a_q κ(x_i, x_q)], fitted as Bayesian linear regression.

    Nyström features φ(x) = δ Λ^{-1/2} Vᵀ κ_M(x) with prior w ~ N(0, 1); observations are total energies (noise σ_E √N), force
    components (σ_F) and stress components (σ_S), any of them missing on any structure. Variances are DTC
    (Quiñonero-Candela and Rasmussen 2005, JMLR 6, 1939).

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term`, whose contributions add; ``kernel``, ``n_sparse``, ``signal`` and ``selection`` then
        belong to the terms.
    kernel : a kernel, for example `DotProduct`.
    n_sparse : sparse points in all, shared among species in proportion to their environments, or a mapping {symbol: number}.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002.
    signal : prior standard deviation δ of an atom's energy, eV.
    selection : ``"fps"`` or ``"cur"``.
    baseline : reference energies: {symbol: eV}, ``"isolated"``, ``"least-squares"`` or None (isolated atoms where every
        species has one in the data, otherwise least squares). Or a prior mean, `ZBL` or `CalculatorBaseline`, or a list of prior means
        with at most one of the former: ``["isolated", ZBL()]``.
    tolerance : eigenvalues of the sparse points' kernel matrix below this fraction of the largest are dropped.
    threads : threads of fit and predict; None takes every core this process may use.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  prior_means_ : prior means in use.
    n_sparse_ : {symbol: number of sparse points used}.  rank_ : number of features kept.
    condition_ : estimated condition number of the regression.  n_observations_ : {kind: number of rows}.

    Raises
    ------
    InputError : a parameter or a structure cannot be used; `LabelError` when the labels cannot. A fit that fails or is
        interrupted leaves the estimator as it was.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import SOAP, DotProduct, SparseGP
    >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
    >>> for atoms in frames:
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_potential_energy()
    >>> model = SparseGP(SOAP(species=["Cu"], r_cut=4.0, n_max=3, l_max=2), DotProduct(zeta=2)).fit(frames)
    >>> bool(abs(model.predict(frames).energy[1] - frames[1].get_potential_energy()) < 0.01)
    True
    """

    def __init__(
        self,
        descriptor: Descriptor | Term | list[Term],
        kernel: Kernel | None = None,
        *,
        n_sparse: int | Mapping[str, int] = 1000,
        noise: Mapping[str, float] | None = None,
        signal: float = 1.0,
        selection: str = "fps",
        baseline: Mapping[str, float] | str | None | Baseline | list = None,
        tolerance: float = 1e-10,
        threads: int | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.n_sparse = n_sparse
        self.noise = noise
        self.signal = signal
        self.selection = selection
        self.baseline = baseline
        self.tolerance = tolerance
        self.threads = threads

    def fit(self, frames: list[Atoms], y=None, *, progress: bool = False) -> SparseGP:
        """Fit to the labels that ``frames`` carry (`atoms.calc.results`); ``y`` is ignored, as scikit-learn's pipelines pass it.

        ``progress`` draws bars on a terminal. Returns the estimator itself.
        """
        noise = self._checked_noise()
        terms = self._terms()
        frames = as_frames(frames)
        Batch.from_atoms(frames)
        labels = read_labels(frames)
        reference, means = split_baseline(self.baseline)
        labels = subtract(means, frames, labels)
        references = reference_energies(frames, labels, reference)
        with serial_blas():
            fitted = [self._sparse_term(t, frames, progress) for t in terms]
            factors, counts = self._factors(fitted, frames, labels, references, progress)
            posterior = linear.solve(factors, {kind: noise[kind] for kind in factors})
        self._set_fitted(tuple(fitted), posterior, references, factors)
        self.n_observations_ = counts
        logger.info("fitted %d rows on %d features, condition number %.1e", sum(counts.values()), self.rank_, posterior.condition)
        return self

    def _set_fitted(self, terms, posterior, references, factors) -> None:
        self.terms_, self.posterior_, self.factors_ = terms, posterior, factors
        self.reference_energies_, self.prior_means_ = references, split_baseline(self.baseline)[1]
        counts = [dict(zip(t.descriptor.species, map(len, t.points), strict=True)) for t in terms]
        self.n_sparse_ = counts[0] if isinstance(self.descriptor, Descriptor) else counts
        self.rank_, self.condition_ = sum(t.rank for t in terms), posterior.condition

    def _sparse_term(self, term: Term, frames, progress) -> SparseTerm:
        descriptor, points = sparse_points(term, frames, self.threads, progress)
        return SparseTerm.build(replace(term, descriptor=descriptor), points, self.tolerance)

    def _terms(self) -> list[Term]:
        if not isinstance(self.descriptor, Descriptor):
            return as_terms(self.descriptor)
        return [Term(self.descriptor, self.kernel, self.n_sparse, self.signal, self.selection)]

    def _checked_noise(self) -> dict[str, float]:
        noise = {**DEFAULT_NOISE, **(self.noise or {})}
        unknown = sorted(set(noise) - set(DEFAULT_NOISE))
        if unknown:
            raise InputError(f"`noise` has unknown keys {unknown}; it takes {sorted(DEFAULT_NOISE)}.")
        require_positive(**{f"noise['{name}']": value for name, value in noise.items()}, tolerance=self.tolerance)
        return noise

    def _factors(self, terms, frames, labels, references, progress):
        """Triangles of [Φ | y] per kind of observation, and the number of rows of each."""

        def rows(group):
            first, group = group
            return design_factors(terms, group, labels[first : first + len(group)], references, first)

        groups = list(split_by_atoms(frames, max(128, 2 * sum(t.rank for t in terms) // 3)))
        factors, counts = {}, {}
        for part in track(thread_map(rows, groups, self.threads), len(groups), "design rows", progress):
            for kind, (factor, n) in part.items():
                factors[kind] = linear.merge([factors[kind], factor]) if kind in factors else factor
                counts[kind] = counts.get(kind, 0) + n
        return factors, counts

    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        references = baseline_energies(self.reference_energies_, batch.numbers)
        model = SparseModel(self.terms_, self.posterior_, self.threads)
        energies, forces, strain, features = model.mean(batch, first, spread="energy" in wanted)
        mean = total(self.prior_means_, batch, first)
        energies, forces, strain = energies + references + mean.energies, forces + mean.forces, strain + mean.strain
        designs = model.designs(batch, first) if wanted & {"forces", "stress"} else []
        per_atom = batch.offsets[1:-1]
        std = {}
        if features is not None:
            std["energy_std"] = np.sqrt(model.energy_variance(batch, features))
            std["energies_std"] = np.split(np.sqrt(features.variance), per_atom)
        if "forces" in wanted:
            std["forces_std"] = np.split(np.sqrt(model.forces_variance(designs)), per_atom)
        if "stress" in wanted:
            std["stress_std"] = np.sqrt(model.strain_variance(designs)) / batch.volumes[:, None]
        return Prediction(
            energy=np.bincount(batch.structure, energies, minlength=len(batch)),
            energies=np.split(energies, per_atom),
            forces=np.split(forces, per_atom),
            stress=strain / batch.volumes[:, None],
            **std,
        )


def design_factors(terms: list[SparseTerm], frames: list[Atoms], labels: list[Labels], references, first: int) -> dict:
    """{kind: (triangle of [Φ | y], number of rows)} of a group of structures; energies are per atom times √N."""
    batch = Batch.from_atoms(frames, first)
    designs = [DesignRows(term, batch, first) for term in terms]
    parts = {}

    def add(kind, rows, targets, keep, scale):
        table = np.empty((np.count_nonzero(keep), sum(r.shape[1] for r in rows) + 1), order="F")
        np.concatenate([r[keep] for r in rows], axis=1, out=table[:, :-1])
        table[:, -1] = targets[keep]
        table *= scale[keep, None]
        parts[kind] = (linear.triangle(table) if len(table) > table.shape[1] else table, len(table))

    energy = np.array([label.energy for label in labels])
    known = np.isfinite(energy)
    if known.any():
        base = np.bincount(batch.structure, baseline_energies(references, batch.numbers), minlength=len(batch))
        add("energy", [d.energy() for d in designs], energy - base, known, 1 / np.sqrt(batch.sizes))
    has_forces = np.array([label.forces is not None for label in labels])
    if has_forces.any():
        forces = [np.zeros((n, 3)) if label.forces is None else label.forces for label, n in zip(labels, batch.sizes, strict=True)]
        keep, one = np.repeat(has_forces, 3 * batch.sizes), np.ones(3 * batch.n_atoms)
        add("forces", [d.forces(0, batch.n_atoms) for d in designs], np.concatenate(forces).ravel(), keep, one)
    has_stress = np.array([label.stress is not None for label in labels])
    if has_stress.any():
        stress = np.concatenate([np.zeros(6) if label.stress is None else label.stress for label in labels])
        volume = np.repeat(batch.volumes, 6)
        add("stress", [d.strain() for d in designs], stress * volume, np.repeat(has_stress, 6), 1 / volume)
    return parts
