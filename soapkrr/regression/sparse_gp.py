"""Sparse Gaussian-process regression of per-atom energies on energies, forces and stress."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr import linear
from soapkrr.baselines import baseline_energies, reference_energies
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.kernels import DotProduct
from soapkrr.labels import Labels, read_labels
from soapkrr.parallel import serial_blas, thread_map
from soapkrr.potential import Potential
from soapkrr.prediction import Prediction
from soapkrr.progress import track
from soapkrr.regression.design import DesignRows, SparseTerm
from soapkrr.regression.posterior import SparseModel
from soapkrr.selection import SELECTIONS, share
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
    descriptor : `SOAP`.
    kernel : `DotProduct`.
    n_sparse : sparse points in all, shared among species in proportion to their environments, or a mapping {symbol: number}.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002.
    signal : prior standard deviation δ of an atom's energy, eV.
    selection : ``"fps"`` or ``"cur"``.
    baseline : reference energies: {symbol: eV}, ``"isolated"``, ``"least-squares"`` or None (isolated atoms where every
        species has one in the data, otherwise least squares).
    tolerance : eigenvalues of the sparse points' kernel matrix below this fraction of the largest are dropped.
    threads : threads of fit and predict; None takes every core this process may use.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  n_sparse_ : {symbol: number of sparse points used}.  rank_ : number of features kept.
    condition_ : estimated condition number of the regression.  n_observations_ : {kind: number of rows}.

    Raises
    ------
    InputError : a parameter or a structure cannot be used; `LabelError` when the labels cannot. A fit that fails or is
        interrupted leaves the estimator as it was.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
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
        descriptor: SOAP,
        kernel: DotProduct,
        *,
        n_sparse: int | Mapping[str, int] = 1000,
        noise: Mapping[str, float] | None = None,
        signal: float = 3.0,
        selection: str = "fps",
        baseline: Mapping[str, float] | str | None = None,
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
        frames = as_frames(frames)
        check_structures(frames, self.descriptor)
        labels = read_labels(frames)
        frames, labels = in_canonical_order(frames, labels)
        references = reference_energies(frames, labels, self.baseline)
        with serial_blas():
            points = self._sparse_points(frames, progress)
            term = SparseTerm.build(self.descriptor, self.kernel, self.signal, points, self.tolerance)
            factors, counts = self._factors(term, frames, labels, references, progress)
            posterior = linear.solve(factors, {kind: noise[kind] for kind in factors})
        self._set_fitted(term, posterior, references, factors)
        self.n_observations_ = counts
        logger.info("fitted %d rows on %d features, condition number %.1e", sum(counts.values()), term.rank, posterior.condition)
        return self

    def _set_fitted(self, term, posterior, references, factors) -> None:
        self.term_, self.posterior_, self.factors_ = term, posterior, factors
        self.reference_energies_ = references
        self.n_sparse_ = dict(zip(self.descriptor.species, map(len, term.points), strict=True))
        self.rank_, self.condition_ = term.rank, posterior.condition

    def _checked_noise(self) -> dict[str, float]:
        noise = {**DEFAULT_NOISE, **(self.noise or {})}
        unknown = sorted(set(noise) - set(DEFAULT_NOISE))
        if unknown:
            raise InputError(f"`noise` has unknown keys {unknown}; it takes {sorted(DEFAULT_NOISE)}.")
        for name, value in {**noise, "signal": self.signal, "tolerance": self.tolerance}.items():
            if not (np.isfinite(value) and value > 0):
                where = f"noise['{name}']" if name in noise else name
                raise InputError(f"`{where}` must be a positive finite number, received {value!r}.")
        if not self.tolerance < 1:
            raise InputError(f"`tolerance` is a fraction of the largest eigenvalue and must be below 1, received {self.tolerance!r}.")
        if self.selection not in SELECTIONS:
            raise InputError(f"`selection` must be one of {sorted(SELECTIONS)}, received {self.selection!r}.")
        return noise

    def _sparse_points(self, frames: list[Atoms], progress: bool) -> list[np.ndarray]:
        """Sparse points of each species, chosen among all its environments in the data."""
        descriptor = self.descriptor

        def environments(group):
            first, group = group
            batch = Batch.from_atoms(group, first)
            env = descriptor.environments(batch, batch.pairs(descriptor.r_cut, first), first)
            return env.X, env.pairs.kinds

        groups = list(split_by_atoms(frames, 512))
        found = list(track(thread_map(environments, groups, self.threads), len(groups), "environments", progress))
        kinds = np.concatenate([k for _, k in found])
        counts = np.bincount(kinds, minlength=len(descriptor.species))
        wanted = self._wanted(counts)
        points = []
        for s, symbol in enumerate(descriptor.species):
            X = np.concatenate([x[k == s] for x, k in found])
            picked = SELECTIONS[self.selection](X, int(wanted[s])) if counts[s] else np.zeros(0, dtype=np.int64)
            if len(picked) < self._asked(symbol, wanted[s]):
                logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(picked))
            points.append(np.ascontiguousarray(X[picked]))
        return points

    def _asked(self, symbol: str, wanted: int) -> int:
        return self.n_sparse.get(symbol, 0) if isinstance(self.n_sparse, Mapping) else wanted

    def _wanted(self, counts: np.ndarray) -> np.ndarray:
        species = self.descriptor.species
        if isinstance(self.n_sparse, Mapping):
            missing = [s for s, n in zip(species, counts, strict=True) if n and not self.n_sparse.get(s)]
            if missing:
                raise InputError(f"`n_sparse` names no number of sparse points for {missing}.")
            return np.minimum([self.n_sparse.get(s, 0) for s in species], counts)
        if not (isinstance(self.n_sparse, (int, np.integer)) and self.n_sparse > 0):
            raise InputError(f"`n_sparse` must be a positive integer or a mapping {{symbol: number}}, received {self.n_sparse!r}.")
        if self.n_sparse > counts.sum():
            logger.warning("`n_sparse`=%d exceeds the %d environments of the data; all of them are used", self.n_sparse, counts.sum())
        shares = np.zeros_like(counts)
        shares[counts > 0] = share(counts[counts > 0], int(self.n_sparse))
        return shares

    def _factors(self, term, frames, labels, references, progress):
        """Triangles of [Φ | y] per kind of observation, and the number of rows of each."""

        def rows(group):
            first, group = group
            return design_factors(term, group, labels[first : first + len(group)], references, first)

        groups = list(split_by_atoms(frames, max(128, 2 * term.rank // 3)))
        factors, counts = {}, {}
        for part in track(thread_map(rows, groups, self.threads), len(groups), "design rows", progress):
            for kind, (factor, n) in part.items():
                factors[kind] = linear.merge([factors[kind], factor]) if kind in factors else factor
                counts[kind] = counts.get(kind, 0) + n
        return factors, counts

    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        references = baseline_energies(self.reference_energies_, batch.numbers, batch.structure + first)
        pairs = batch.pairs(self.descriptor.r_cut, first)
        arrays = self.descriptor.arrays(batch, pairs, first)
        model = SparseModel(self.term_, self.posterior_, self.threads)
        energies, forces, strain, features = model.mean(batch, pairs, arrays, spread="energy" in wanted)
        energies = energies + references
        design = None
        if wanted & {"forces", "stress"}:
            design = DesignRows(self.term_, batch, self.descriptor.environments(batch, pairs, first))
        per_atom = batch.offsets[1:-1]
        std = {}
        if features is not None:
            std["energy_std"] = np.sqrt(model.energy_variance(batch, features))
            std["energies_std"] = np.split(np.sqrt(features.variance), per_atom)
        if "forces" in wanted:
            std["forces_std"] = np.split(np.sqrt(model.forces_variance(design)), per_atom)
        if "stress" in wanted:
            std["stress_std"] = np.sqrt(model.strain_variance(design)) / batch.volumes[:, None]
        return Prediction(
            energy=np.bincount(batch.structure, energies, minlength=len(batch)),
            energies=np.split(energies, per_atom),
            forces=np.split(forces, per_atom),
            stress=strain / batch.volumes[:, None],
            **std,
        )


def check_structures(frames: list[Atoms], descriptor: SOAP) -> None:
    """Raise on the first structure, by its place in the list, that cannot be described."""
    for first, group in split_by_atoms(frames, 4096):
        batch = Batch.from_atoms(group, first)
        descriptor.kinds(batch.numbers, first, batch.structure)
        batch.pairs(descriptor.r_cut, first)


def in_canonical_order(frames: list[Atoms], labels: list[Labels]) -> tuple[list[Atoms], list[Labels]]:
    """Structures sorted by content, so that the order in which they were given changes nothing, not even the rounding."""

    def content(index):
        atoms, label = frames[index], labels[index]
        arrays = (atoms.numbers, atoms.cell.array, atoms.positions, np.float64(label.energy))
        return len(atoms), tuple(np.asarray(a).tobytes() for a in arrays)

    order = sorted(range(len(frames)), key=content)
    return [frames[i] for i in order], [labels[i] for i in order]


def design_factors(term: SparseTerm, frames: list[Atoms], labels: list[Labels], references, first: int) -> dict:
    """{kind: (triangle of [Φ | y], number of rows)} of a group of structures; energies are per atom times √N."""
    batch = Batch.from_atoms(frames, first)
    pairs = batch.pairs(term.descriptor.r_cut, first)
    design = DesignRows(term, batch, term.descriptor.environments(batch, pairs, first))
    parts = {}

    def add(kind, kernel_rows, targets, keep, scale):
        if keep.any():
            rows = term.whiten([r[keep] for r in kernel_rows]) * scale[keep, None]
            table = np.asfortranarray(np.column_stack([rows, (targets * scale)[keep]]))
            parts[kind] = (linear.triangle(table) if len(table) > table.shape[1] else table, len(table))

    energy = np.array([label.energy for label in labels])
    known = np.isfinite(energy)
    if known.any():
        base = np.bincount(batch.structure, baseline_energies(references, batch.numbers), minlength=len(batch))
        add("energy", design.energy(), np.where(known, energy - base, 0.0), known, 1 / np.sqrt(batch.sizes))
    has_forces = np.array([label.forces is not None for label in labels])
    if has_forces.any():
        forces = [np.zeros((n, 3)) if label.forces is None else label.forces for label, n in zip(labels, batch.sizes, strict=True)]
        keep = np.repeat(has_forces, 3 * batch.sizes)
        add("forces", design.forces(0, batch.n_atoms), np.concatenate(forces).ravel(), keep, np.ones(3 * batch.n_atoms))
    has_stress = np.array([label.stress is not None for label in labels])
    if has_stress.any():
        stress = np.concatenate([np.zeros(6) if label.stress is None else label.stress for label in labels])
        volume = np.repeat(batch.volumes, 6)
        add("stress", design.strain(), stress * volume, np.repeat(has_stress, 6), 1 / volume)
    return parts
