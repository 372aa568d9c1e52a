"""Gaussian processes of tensors of structures and atoms: dipoles, polarisabilities, Born charges, pseudo-scalars."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
from ase import Atoms
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from soapkrr import modelfile
from soapkrr.descriptors.equivariant import equivariants
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError, LabelError, require_positive
from soapkrr.estimators.fitted import RUNTIME
from soapkrr.kernels import Kernel
from soapkrr.labels.lookup import lookup, numeric
from soapkrr.regression import stored
from soapkrr.regression.data import check_structures
from soapkrr.regression.origin import data_hash, origin
from soapkrr.regression.scalar.sums import PROPERTIES, owners
from soapkrr.regression.tensor.process import How, TensorProcess
from soapkrr.regression.tensor.ranks import Rank, as_rank
from soapkrr.specification import Nested
from soapkrr.structures import as_frames, species_name
from soapkrr.tensor_prediction import TensorPrediction
from soapkrr.threads import serial_blas


class TensorGP(Nested, BaseEstimator):
    """Gaussian process of a tensor that turns with the structure: t = Σ_i w_i f(i).

    Each spherical part of degree λ has the covariance δ² κ(x_i, x_j) p_i p_jᵀ between atoms of one species, p_i the λ-SOAP tensors
    (2λ+1, q) of `Equivariants`, κ a kernel of power spectra (Grisafi et al. 2018, doi 10.1103/PhysRevLett.120.036002). Predictions turn
    with structures by construction, whatever is learnt. The posterior is that on sparse environments; with all of them it is exact.

    Parameters
    ----------
    descriptor : a `SOAP`.
    kernel : kernel κ of the power spectra, by which p·p′ is multiplied: `DotProduct(zeta=1)` gives what is called ζ = 2.
    rank : ``"dipole"`` (3,), ``"polarisability"`` (symmetric 3 × 3), ``"born"`` (3 × 3), ``"pseudovector"`` (3,), ``"scalar"``,
        ``"pseudoscalar"``, or (λ, σ): the 2λ+1 components of real spherical harmonics, m = −λ … λ, of parity σ (−1: pseudo-tensors).
    target : what has a tensor: ``"extensive"`` (a structure, w = 1), ``"intensive"`` (w = 1/N), or ``"atom"``.
    n_sparse : environments in the sparse set of each part; None: all of the training data, which is the exact process.
    noise : standard deviation of a component; if extensive that of the total is noise·√N.
    signal : prior standard deviation δ of an atom's part.
    tolerance : eigenvalues of the sparse points' kernel below this fraction of the largest are dropped.

    Attributes
    ----------
    processes_ : {(λ, σ): `TensorProcess`} of the spherical parts.  noise_, signals_ : {(λ, σ): σ, δ} in use.
    log_likelihood_ : log evidence of all parts.  reference_values_ : {symbol: value} of the scalar part, found by least squares.

    Raises
    ------
    InputError : a parameter or structure cannot be used; `LabelError` when the values cannot.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from soapkrr import SOAP, DotProduct, TensorGP
    >>> water = molecule("H2O")
    >>> turned = water.copy()
    >>> turned.rotate(90, "x")
    >>> model = TensorGP(SOAP(["H", "O"], r_cut=3.0, n_max=3, l_max=2), DotProduct(zeta=1), rank="dipole", noise=1e-3)
    >>> np.round(model.fit([water], [[0.0, 0.0, -1.8]]).predict(turned).values[0], 2) + 0.0
    array([0. , 1.8, 0. ])
    """

    def __init__(
        self,
        descriptor: SOAP,
        kernel: Kernel | None = None,
        *,
        rank: str | Sequence[int] = "dipole",
        target: str = "extensive",
        n_sparse: int | None = None,
        noise: float = 0.01,
        signal: float = 1.0,
        tolerance: float = 1e-10,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.rank = rank
        self.target = target
        self.n_sparse = n_sparse
        self.noise = noise
        self.signal = signal
        self.tolerance = tolerance

    def fit(self, frames: list[Atoms], y: str | Sequence, *, optimize: bool = False) -> TensorGP:
        """Fit to ``y``: the name of the tensor in the calculator's results (such as ``"dipole"``), `info` or `arrays`, or the values, one
        for each structure, for atoms one array for each. ``optimize``: noise and signal of highest evidence, for each spherical part.
        """
        rank, frames = self._rank(), as_frames(frames)
        check_structures(frames, [self.descriptor])
        values = tensors_of(frames, y, rank, self.target)
        how = How(self.target, self.n_sparse, self.tolerance, self.signal, self.noise, optimize)
        processes, references = {}, {}
        with serial_blas():
            for kind, basis in rank.parts:
                part = values @ basis.T
                if kind == (0, 1):
                    references = _references(frames, part[:, 0], self.target)
                    part = part - _sum_of(references, frames, self.target)[:, None]
                processes[kind] = TensorProcess.fit(equivariants(self.descriptor, *kind), self._kernel(), frames, part, how)
        self.fitted_parameters_ = {name: value for name, value in self.get_params(deep=False).items() if name not in RUNTIME}
        self._set_fitted(processes, references)
        self.origin_ = origin(data_hash(frames, [(part,) for part in np.split(values, _bounds(frames, self.target))]))
        return self

    def predict(self, frames: Atoms | list[Atoms], uncertainty: bool = False) -> TensorPrediction:
        """Tensors of structures, or of their atoms; with ``uncertainty`` posterior covariances of their components.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure cannot be used; the message names it.
        """
        check_is_fitted(self)
        frames, given = as_frames(frames), self.fitted_parameters_
        rank, target = as_rank(given["rank"]), given["target"]
        check_structures(frames, [given["descriptor"]], pairs=False)
        n = rank.n_components
        values, covariance = 0.0, np.zeros((1, n, n))
        with serial_blas():
            for kind, basis in rank.parts:
                mean, found = self.processes_[kind].predict(frames, uncertainty)
                if kind == (0, 1):
                    mean = mean + _sum_of(self.reference_values_, frames, target)[:, None]
                values = values + mean @ basis
                covariance = covariance if found is None else covariance + np.einsum("mc,vmn,nd->vcd", basis, found, basis)
        std = np.sqrt(np.einsum("vcc->vc", covariance)).reshape(-1, *rank.shape) if uncertainty else None
        sizes = np.array([len(atoms) if target == "atom" else 1 for atoms in frames])
        return TensorPrediction(np.reshape(values, (-1, *rank.shape)), std, covariance if uncertainty else None, sizes)

    def sample(self, frames: Atoms | list[Atoms], n: int = 1, seed: int = 0) -> np.ndarray:
        """(n, n_values, ...) tensors of n functions drawn from the posterior, each the same one for all structures: error bars on whatever
        is derived from many of them, such as a spectrum. What sparse points leave undetermined is in `predict` and not in these.
        """
        check_is_fitted(self)
        frames, given, out = as_frames(frames), self.fitted_parameters_, 0.0
        rank = as_rank(given["rank"])
        check_structures(frames, [given["descriptor"]], pairs=False)
        with serial_blas():
            for kind, basis in rank.parts:
                drawn = self.processes_[kind].samples(frames, n, seed)
                if kind == (0, 1):
                    drawn = drawn + _sum_of(self.reference_values_, frames, given["target"])[:, None]
                out = out + drawn @ basis
        return np.reshape(out, (n, -1, *rank.shape))

    def score(self, frames: list[Atoms], y: str | Sequence) -> float:
        """Coefficient of determination R² of all components, about their mean; ``y`` as in `fit`."""
        check_is_fitted(self)
        rank = as_rank(self.fitted_parameters_["rank"])
        values = tensors_of(as_frames(frames), y, rank, self.fitted_parameters_["target"])
        rest = values - self.predict(frames).values.reshape(values.shape)
        return float(1 - np.sum(rest**2) / np.sum((values - values.mean(axis=0)) ** 2))

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one file; `soapkrr.load` reads it."""
        check_is_fitted(self)
        modelfile.write(path, estimator=type(self).__name__, origin=self.origin_, parameters=self.fitted_parameters_, state=self.state())

    def state(self) -> dict:
        """Fitted state for a model file."""
        return {"reference_energies": self.reference_values_, "parts": [process.state() for process in self.processes_.values()]}

    def restore(self, state: Mapping) -> None:
        """Become the fitted model of a `state`; raises `ModelFileError` where the parts do not fit together."""
        rank, kernel = self._rank(), self._kernel()
        parts = zip(rank.parts, state["parts"], strict=True)
        processes = {
            kind: TensorProcess.restore(equivariants(self.descriptor, *kind), kernel, self.target, stored.mapping(part, "parts"))
            for (kind, _), part in parts
        }
        self.fitted_parameters_ = self.get_params(deep=False)
        self._set_fitted(processes, dict(stored.references(state["reference_energies"])))

    def _set_fitted(self, processes: dict, references: dict[str, float]) -> None:
        self.processes_, self.reference_values_ = processes, references
        self.noise_ = {kind: process.noise for kind, process in processes.items()}
        self.signals_ = {kind: process.signal for kind, process in processes.items()}
        self.log_likelihood_ = sum(process.evidence for process in processes.values())

    def _rank(self) -> Rank:
        """The rank; raises where a parameter is none that a fit takes."""
        require_positive(noise=self.noise, signal=self.signal, tolerance=self.tolerance)
        if self.target not in PROPERTIES:
            raise InputError(f"`target` must be one of {PROPERTIES}, received {self.target!r}.")
        if self.n_sparse is not None and not (isinstance(self.n_sparse, Integral) and self.n_sparse > 0):
            raise InputError(f"`n_sparse` must be a positive integer or None, received {self.n_sparse!r}.")
        return as_rank(self.rank)

    def _kernel(self) -> Kernel:
        if not isinstance(self.kernel, Kernel):
            raise InputError(f"`kernel` must be a soapkrr kernel, received {type(self.kernel).__name__}.")
        return self.kernel


def tensors_of(frames: list[Atoms], y: str | Sequence, rank: Rank, target: str) -> np.ndarray:
    """(n_values, n_components) tensors, checked; raises `LabelError` naming frame and key."""
    name, found, per_atom = y if isinstance(y, str) else "y", [], target == "atom"
    if not isinstance(y, str) and (y is None or len(y) != len(frames)):
        raise LabelError(f"`y` must hold one tensor (of atoms: one array) for each of {len(frames)} structures, or be the name of them.")
    for index, atoms in enumerate(frames):
        value = lookup(atoms, y, index, per_atom) if isinstance(y, str) else y[index]
        if value is None:
            raise LabelError(f"frame {index} has no {name!r} in its `{'arrays' if per_atom else 'info'}` or its calculator's results.")
        value, shape = numeric(value, name, index), (len(atoms),) * per_atom + rank.shape
        if value.size != np.prod(shape) or (value.shape != shape and value.ndim > 1 + per_atom):
            raise LabelError(f"frame {index}: `{name}` has shape {value.shape}, expected {shape}.")
        if not np.isfinite(value).all():
            raise LabelError(f"frame {index}: `{name}` holds numbers that are not finite; correct or remove it.")
        found.append(value.reshape(-1, rank.n_components))
        matrices = found[-1].reshape(-1, *rank.shape)
        if rank.symmetric and not np.allclose(matrices, matrices.swapaxes(1, 2), atol=1e-3 * np.abs(matrices).max(initial=1e-300)):
            raise LabelError(f"frame {index}: `{name}` is not symmetric; take rank='born' for a general matrix.")
    return np.concatenate(found)


def _bounds(frames: list[Atoms], target: str) -> np.ndarray:
    """Places where the values of one structure end and those of the next begin."""
    return np.cumsum([len(atoms) if target == "atom" else 1 for atoms in frames])[:-1]


def _weights(frames: list[Atoms], target: str) -> tuple[np.ndarray, np.ndarray]:
    """(n_values, n_species) weights of the species in each value, and their atomic numbers."""
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    species, kind = np.unique(numbers, return_inverse=True)
    owner, weight = owners(frames, target)
    rows = np.zeros((owner[-1] + 1, len(species)))
    np.add.at(rows, (owner, kind), weight)
    return rows, species


def _references(frames: list[Atoms], y: np.ndarray, target: str) -> dict[str, float]:
    """{symbol: value} that explain scalars best."""
    rows, species = _weights(frames, target)
    found = np.linalg.lstsq(rows, y, rcond=1e-10)[0]
    return {species_name(z): float(e) for z, e in zip(species, found, strict=True)}


def _sum_of(references: Mapping[str, float], frames: list[Atoms], target: str) -> np.ndarray:
    """(n_values,) Σ_i w_i e(z_i); a species without a value raises."""
    rows, species = _weights(frames, target)
    unknown = [species_name(z) for z in species if species_name(z) not in references]
    if unknown:
        raise InputError(f"species {unknown[0]} was not in the training data; this model knows {sorted(references)}.")
    return rows @ [references[species_name(z)] for z in species]
