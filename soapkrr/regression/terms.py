"""Terms of a potential: descriptor + kernel + sparse set, and the Nyström features that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, ModelFileError, require_positive
from soapkrr.kernels import Kernel, squares
from soapkrr.lazy import cached_property
from soapkrr.linear import whitening
from soapkrr.regression import stored
from soapkrr.selection.specifications import Selection, as_selection
from soapkrr.specification import Specification

#: Signals above overflow when they are squared and multiplied by numbers of atoms, eV.
LARGEST_SIGNAL = 1e50

#: Rows from which a product with a triangle is quicker than a general one.
FEW = 8


@dataclass(frozen=True)
class Term(Specification):
    """One additive part of a potential's energy; terms add with ``+``.

    Parameters
    ----------
    descriptor, kernel : what is compared, and how.
    n_sparse : sparse points in all, shared among species in proportion to their environments, or {symbol: number}.
    signal : prior standard deviation δ of an atom's energy, eV.
    selection : how sparse points are chosen: ``"fps"``, ``"cur"``, ``"leverage"``, ``"random"``, ``"kmeans"``, or a specification of
        `selection`: `Stratified`, `GivenPoints`, `RandomSelection`, `KMeans`, `Leverage`.
    """

    descriptor: Descriptor
    kernel: Kernel
    n_sparse: int | Mapping[str, int] = 1000
    signal: float = 3.0
    selection: str | Selection = "fps"

    def __post_init__(self):
        if not isinstance(self.descriptor, Descriptor):
            raise InputError(f"`descriptor` must be a soapkrr descriptor, received {type(self.descriptor).__name__}.")
        if not isinstance(self.kernel, Kernel):
            raise InputError(f"`kernel` must be a soapkrr kernel, received {type(self.kernel).__name__}.")
        require_positive(signal=self.signal)
        if self.signal > LARGEST_SIGNAL:
            raise InputError(f"`signal` is the standard deviation of an atom's energy in eV, some 1 to 10; received {self.signal!r}.")
        as_selection(self.selection)

    def __add__(self, other) -> list[Term]:
        return [self, *as_terms(other)]

    def __radd__(self, other) -> list[Term]:
        return [*as_terms(other), self]


def as_terms(value) -> list[Term]:
    """A list of terms from one or several."""
    terms = [value] if isinstance(value, Term) else list(value)
    if not terms or not all(isinstance(t, Term) for t in terms):
        raise InputError("a potential needs a list of `Term`, at least one.")
    return terms


@dataclass(frozen=True, eq=False)
class SparseTerm:
    """A term with its sparse set: φ(x) = δ Tᵀ κ(x, X_M), one independent block of columns per species.

    Attributes
    ----------
    points : per species (M_s, n_features) sparse points.  transform : per species (M_s, r_s) T with Tᵀ κ_MM T = 1.
    """

    descriptor: Descriptor
    kernel: Kernel
    signal: float
    points: tuple[np.ndarray, ...]
    transform: tuple[np.ndarray, ...]

    @classmethod
    def build(cls, term: Term, points, tolerance: float, threads: int | None = None) -> SparseTerm:
        """Whiten the kernel of the sparse points, truncating eigenvalues below ``tolerance`` × the largest."""
        return cls(term.descriptor, term.kernel, term.signal, tuple(points), ()).whitened(tolerance, threads)

    def whitened(self, tolerance: float, threads: int | None = None) -> SparseTerm:
        """With the transform of its points; `build` says what ``tolerance`` is."""
        empty = self.xp.zeros((0, 0))
        transform = tuple(whitening(self.kernel(x), tolerance, threads) if len(x) else empty for x in self.points)
        return replace(self, transform=transform)

    @property
    def xp(self):
        """The library of its arrays: where it is evaluated."""
        return backends.namespace(self.points[0])

    def moved(self, xp) -> SparseTerm:
        """The same with arrays of another library."""
        return (
            self if xp is self.xp else replace(self, points=backends.moved(xp, self.points), transform=backends.moved(xp, self.transform))
        )

    @cached_property
    def columns(self) -> np.ndarray:
        """(n_species + 1,) first column of each species."""
        return np.cumsum([0] + [t.shape[1] for t in self.transform])

    @cached_property
    def scaled_transform(self) -> list[np.ndarray]:
        """Per species (M_s, r_s) δT: features from kernel values."""
        return [self.signal * t for t in self.transform]

    @cached_property
    def squares(self) -> list[np.ndarray]:
        """Per species (1, M_s) squared norms of the sparse points."""
        return [squares(x)[None, :] for x in self.points]

    @property
    def rank(self) -> int:
        return int(self.columns[-1])

    @property
    def n_points(self) -> int:
        """Sparse points of all species."""
        return sum(map(len, self.points))

    def sparse_weights(self, weights: np.ndarray) -> list[np.ndarray]:
        """Coefficients of the sparse points, E_i = Σ_q a_q κ(x_i, x_q), from weights of the features; per species."""
        return [t @ weights[a:b] for t, a, b in zip(self.scaled_transform, self.columns, self.columns[1:], strict=False)]

    def whiten(self, kernel_rows: list[np.ndarray]) -> np.ndarray:
        """Features (m, rank) from kernel rows per species (m, M_s)."""
        out = self.xp.empty((len(kernel_rows[0]), self.rank))
        for s, (k, t) in enumerate(zip(kernel_rows, self.scaled_transform, strict=True)):
            by_half = self._triangular[s] and len(k) >= FEW
            out[:, self.columns[s] : self.columns[s + 1]] = backends.of(k).dense.times_triangle(k, t) if by_half else k @ t
        return out

    @cached_property
    def _triangular(self) -> list[bool]:
        """Per species, whether the transform is an upper triangle, as of a Cholesky factor."""
        return [t.size > 0 and t.shape[0] == t.shape[1] and not bool(self.xp.tril(t, -1).any()) for t in self.transform]

    def prior(self, X: np.ndarray) -> np.ndarray:
        """(n,) prior variance of single atoms' energies."""
        return self.signal**2 * self.kernel.diagonal(X)

    def state(self) -> dict:
        """For a model file."""
        return backends.host({name: getattr(self, name) for name in ("descriptor", "kernel", "signal", "points", "transform")})

    @classmethod
    def restore(cls, state: dict) -> SparseTerm:
        """From `state`; raises `ModelFileError` where the parts do not fit together."""
        descriptor, kernel, signal = checked_term(state)
        points, transform = (stored.arrays(state[name], name) for name in ("points", "transform"))
        for symbol, x, t in zip(descriptor.kind_names, points, transform, strict=True):
            if x.ndim != 2 or x.shape[1] != descriptor.n_features or t.ndim != 2 or len(t) != len(x):
                raise ModelFileError(f"the arrays do not fit the descriptor: {symbol} has sparse points {x.shape}, transform {t.shape}.")
        return cls(descriptor, kernel, signal, points, transform)


def checked_term(state: dict) -> tuple[Descriptor, Kernel, float]:
    """Descriptor, kernel and signal of a term from a model file."""
    descriptor, kernel = state["descriptor"], state["kernel"]
    if not (isinstance(descriptor, Descriptor) and isinstance(kernel, Kernel)):
        raise ModelFileError(f"the file pairs {descriptor!r} with {kernel!r}, which is no term.")
    return descriptor, kernel, float(stored.number(state["signal"], "signal", positive=True))


def total_priors(kernel: Kernel, X: np.ndarray, kinds: np.ndarray, offsets: np.ndarray, threads: int | None) -> np.ndarray:
    """(n_structures,) prior variances of total energies, Σ_ij κ(x_i, x_j) over atoms of one species; unit signal.

    Atoms of structure s are rows ``offsets[s]:offsets[s + 1]`` of X, of the species ``kinds``, a NumPy array.
    """
    xp = backends.namespace(X)
    prior = xp.zeros(len(offsets) - 1)
    for s, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)):
        for kind in np.unique(kinds[a:b]):
            prior[s] += kernel.total(X[xp.asarray(a + np.flatnonzero(kinds[a:b] == kind))], threads)
    return prior
