"""SOAP power spectrum: values, pull-back of a gradient to the pairs, and Jacobian blocks.

Source: Bartók, Kondor and Csányi 2013, doi 10.1103/PhysRevB.87.184115.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import factorial

import numpy as np
from ase.data import atomic_numbers

from soapkrr.backends import cpu
from soapkrr.descriptors.cutoff import CUTOFFS, RadialScaling, Smoothstep
from soapkrr.descriptors.radial import RADIAL_BASES, dressed_basis, radial_table
from soapkrr.errors import InputError
from soapkrr.structures import Batch, Pairs, as_frames, species_name

#: Knots per Å of the radial table, times 1/σ: spline errors stay below 1e-10 of the largest value.
KNOTS_PER_WIDTH = 24

#: Narrower Gaussians (Å) could only make unsmooth potentials, and tables without bounds.
MIN_SIGMA = 0.05


@dataclass(frozen=True, eq=False)
class Environments:
    """Descriptors of every atom of a batch, with what their derivatives need.

    Attributes
    ----------
    X : (n_atoms, n_features) normalised power spectra.  norms : (n_atoms,) |p| before normalisation.
    c : (n_atoms, (l_max+1)², n_channels) density expansion.
    """

    X: np.ndarray
    norms: np.ndarray
    c: np.ndarray
    pairs: cpu.PairArrays


@dataclass(frozen=True)
class SOAP:
    """Smooth overlap of atomic positions: the rotation-invariant power spectrum of the neighbour density.

    c_{s,nlm}(i) = Σ_{j∈N(i), z_j=s} f_c(r_ij) R_nl(r_ij) Y_lm(r̂_ij), central atom included, and
    p_{(sn)(s'n')l} = √(8π²/(2l+1)) Σ_m c_{snlm} c_{s'n'lm}; one triangle of channel pairs is kept, off-diagonal entries times √2,
    and the vector is normalised, so that x·x' is the overlap of the full tensors.

    Parameters
    ----------
    species : chemical symbols or atomic numbers that may occur.
    r_cut : cutoff radius, Å.
    n_max, l_max : number of radial functions, highest angular momentum.
    sigma : width of the Gaussians, Å.
    cutoff : ``"smoothstep"``, ``"cosine"``, ``"poly"`` or an object from `soapkrr.descriptors.cutoff`.
    rbf : radial basis, ``"gto"`` (as DScribe's) or ``"bessel"`` (Laplacian eigenstates).
    scaling : `RadialScaling` or None; weight of neighbours that falls with distance.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> SOAP(species=["Si"], r_cut=5.0, n_max=8, l_max=6, sigma=0.5).create(bulk("Si")).shape
    (2, 252)
    """

    species: Sequence[str | int]
    r_cut: float
    n_max: int = 8
    l_max: int = 6
    sigma: float = 0.5
    cutoff: object = field(default_factory=Smoothstep)
    rbf: str = "gto"
    scaling: RadialScaling | None = None

    def __post_init__(self):
        object.__setattr__(self, "species", _symbols(self.species))
        if isinstance(self.cutoff, str):
            if self.cutoff not in CUTOFFS:
                raise InputError(f"`cutoff` must be one of {sorted(CUTOFFS)} or a cutoff object, received {self.cutoff!r}.")
            object.__setattr__(self, "cutoff", CUTOFFS[self.cutoff]())
        for name, low, high in (("n_max", 1, 32), ("l_max", 0, 20)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and low <= value <= high):
                raise InputError(f"`{name}` must be an integer from {low} to {high}, received {value!r}.")
        for name in ("r_cut", "sigma"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"`{name}` must be a positive finite length in Å, received {value!r}.")
        if self.sigma < MIN_SIGMA:
            raise InputError(f"`sigma` must be at least {MIN_SIGMA} Å, the width of an atom's Gaussian; received {self.sigma!r}.")
        if self.rbf not in RADIAL_BASES:
            raise InputError(f"`rbf` must be one of {sorted(RADIAL_BASES)}, received {self.rbf!r}.")
        self._basis  # noqa: B018  build the table now, so that impossible parameters fail here

    @property
    def n_channels(self) -> int:
        """Radial functions times species."""
        return self.n_max * len(self.species)

    @property
    def n_features(self) -> int:
        """Length of the power spectrum."""
        return self.n_channels * (self.n_channels + 1) // 2 * (self.l_max + 1)

    @cached_property
    def _basis(self) -> cpu.Basis:
        weights = [lambda r: self.cutoff(r, self.r_cut)] + ([self.scaling] if self.scaling else [])
        weighted = dressed_basis(self.rbf, weights, self.r_cut, self.n_max, self.l_max, self.sigma)
        n_knots = int(np.ceil(KNOTS_PER_WIDTH * self.r_cut / min(self.sigma, getattr(self.cutoff, "width", None) or self.sigma)))
        l = np.arange(self.l_max + 1)
        return cpu.Basis(
            table=radial_table(weighted, self.r_cut, self.l_max, n_knots),
            norm=harmonic_norms(self.l_max),
            weight=np.sqrt(8 * np.pi**2 / (2 * l + 1)),
            inv_r_cut=1.0 / self.r_cut,
            l_max=int(self.l_max),
            n_max=int(self.n_max),
        )

    @cached_property
    def _kind_of(self) -> np.ndarray:
        table = np.full(130, -1, dtype=np.int64)
        table[[atomic_numbers[s] for s in self.species]] = np.arange(len(self.species))
        return table

    def kinds(self, numbers: np.ndarray, first: int = 0, structure: np.ndarray | None = None) -> np.ndarray:
        """Species index of each atom; an unknown species raises, naming it, the frame and the known ones."""
        kinds = self._kind_of[numbers]
        unknown = np.flatnonzero(kinds < 0)
        if len(unknown):
            where = "" if structure is None else f"frame {first + structure[unknown[0]]}: "
            raise InputError(
                f"{where}species {species_name(numbers[unknown[0]])} is unknown to this descriptor; `species` lists {list(self.species)}."
            )
        return kinds

    def arrays(self, batch: Batch, pairs: Pairs, first: int = 0) -> cpu.PairArrays:
        """Neighbour arrays as the compiled loops take them; species are checked."""
        return cpu.PairArrays(pairs.offsets, pairs.j, pairs.vectors, self.kinds(batch.numbers, first, batch.structure))

    def environments(self, batch: Batch, pairs: Pairs, first: int = 0) -> Environments:
        """Power spectra of every atom of a batch."""
        arrays = self.arrays(batch, pairs, first)
        c = np.empty((batch.n_atoms, (self.l_max + 1) ** 2, self.n_channels))
        X, norms = np.empty((batch.n_atoms, self.n_features)), np.empty(batch.n_atoms)
        self.compute(0, batch.n_atoms, arrays, c, X, norms)
        return Environments(X, norms, c, arrays)

    def compute(self, start: int, stop: int, arrays: cpu.PairArrays, c, X, norms) -> None:
        """Fill c, X and norms (each for ``start:stop`` only) in place."""
        cpu.expand(start, stop, arrays, self._basis, c)
        cpu.power_spectrum(c, self._basis.weight, self._basis.l_max, X, norms)

    def pullback(self, start: int, stop: int, arrays: cpu.PairArrays, c, X, norms, gradient, out) -> None:
        """∂E/∂r_ij of the pairs of atoms ``start:stop`` into ``out``, from gradient = ∂E/∂X (n, n_features)."""
        H = np.empty_like(c)
        cpu.power_spectrum_pullback(gradient, X, norms, c, self._basis.weight, self._basis.l_max, H)
        cpu.expansion_pullback(start, stop, arrays, self._basis, H, out)

    def jacobian(self, start: int, stop: int, env: Environments, rows: np.ndarray, out: np.ndarray) -> None:
        """∂X_i/∂r_a for displaced atoms ``start:stop``, three rows per (a, i); see `backends.cpu.jacobian`."""
        cpu.jacobian(start, stop, env.pairs, self._basis, env.c, env.X, env.norms, rows, out)

    def strain_jacobian(self, start: int, stop: int, env: Environments, out: np.ndarray) -> None:
        """∂X_i/∂ε of centres ``start:stop`` in Voigt order; out (n, 6, n_features)."""
        cpu.strain_jacobian(start, stop, env.pairs, self._basis, env.c, env.X, env.norms, out)

    def create(self, frames) -> np.ndarray:
        """Normalised power spectra (total number of atoms, n_features) of one or several structures."""
        batch = Batch.from_atoms(as_frames(frames))
        return self.environments(batch, batch.pairs(self.r_cut)).X


def harmonic_norms(l_max: int) -> np.ndarray:
    """Norms of the real spherical harmonics, packed by l(l+1)/2 + m; √2 included for m > 0."""
    norm = []
    for l in range(l_max + 1):
        for m in range(l + 1):
            norm.append(np.sqrt((2 if m else 1) * (2 * l + 1) / (4 * np.pi) * factorial(l - m) / factorial(l + m)))
    return np.array(norm)


def _symbols(species) -> tuple[str, ...]:
    if isinstance(species, str):
        species = [species]
    numbers = []
    for s in species:
        number = atomic_numbers.get(s) if isinstance(s, str) else int(s)
        if not number or not 0 < number < 119:
            raise InputError(f"`species` holds {s!r}, which is not a chemical element.")
        numbers.append(number)
    if not numbers:
        raise InputError("`species` is empty: name at least one chemical element.")
    return tuple(species_name(n) for n in sorted(set(numbers)))
