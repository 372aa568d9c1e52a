"""Atom-centred symmetry functions G1 to G5 of Behler and Parrinello, by neighbour species or weighted by atomic number.

Source: Behler 2011, doi 10.1063/1.3553717; weighted functions: Gastegger et al. 2018, doi 10.1063/1.5019667.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers

from soapkrr import backends
from soapkrr.backends.arrays import Functions
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.cutoff import Cosine, as_cutoff
from soapkrr.descriptors.radial import checked_knots, quintic_hermite
from soapkrr.descriptors.transform import Standardized
from soapkrr.errors import InputError, require_positive
from soapkrr.lazy import cached_property

#: Knots of the cutoff's table per width of its fall: the quintics follow it to 1e-13.
CUTOFF_KNOTS = 256

#: Exponents ζ of a laid-out angular set, widest angles first.
ZETAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True)
class ACSF(Descriptor):
    """Behler–Parrinello symmetry functions of the surroundings of an atom, in DScribe's order and with its parameter names.

    With f = f_c(r_ij) and θ the angle between r_ij and r_ik, per neighbour species (radial) or unordered pair of species (angular):

        G1 = Σ_j f                                  G2 = Σ_j exp(−η (r_ij − R_s)²) f          G3 = Σ_j cos(κ r_ij) f
        G4 = 2^{1−ζ} Σ_{j<k} (1 + λ cos θ)^ζ exp(−η (r_ij² + r_ik² + r_jk²)) f_c(r_ij) f_c(r_ik) f_c(r_jk)
        G5 = 2^{1−ζ} Σ_{j<k} (1 + λ cos θ)^ζ exp(−η (r_ij² + r_ik²)) f_c(r_ij) f_c(r_ik)

    Goes with a kernel of distances, such as `SquaredExponential` with a length scale of several √n_features (features are scaled to unit
    spread) and a signal of several eV.

    Parameters
    ----------
    species : chemical symbols or atomic numbers that may occur.
    r_cut : cutoff radius, Å.
    g2_params : pairs (η in Å⁻², R_s in Å).  g3_params : numbers κ, Å⁻¹.
    g4_params, g5_params : triples (η in Å⁻², ζ ≥ 1, λ from −1 to 1).
    cutoff : ``"cosine"`` (over the whole range), ``"tanh3"``, ``"poly"``, ``"smoothstep"`` or an object from `soapkrr.descriptors.cutoff`.
    weighted : one set for all species, neighbours weighted by Z_j and pairs by Z_j Z_k, in place of one set per species.
    scale : a fitted term subtracts each feature's mean over the training environments and divides by its standard deviation.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> ACSF(species=["Si"], r_cut=5.0, g2_params=[(1.0, 2.0), (0.5, 3.0)], g4_params=[(0.01, 1, -1)]).create(bulk("Si")).shape
    (2, 4)
    >>> ACSF.layout(["Si", "O"], r_cut=5.0, n_radial=10, n_angular=8).n_features
    46
    """

    g2_params: Sequence[tuple[float, float]] = ()
    g3_params: Sequence[float] = ()
    g4_params: Sequence[tuple[float, float, float]] = ()
    g5_params: Sequence[tuple[float, float, float]] = ()
    cutoff: object = field(default_factory=Cosine)
    weighted: bool = False
    scale: bool = True

    needs_pairs = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "cutoff", as_cutoff(self.cutoff))
        for name, columns in (("g2_params", "(eta, R_s)"), ("g4_params", "(eta, zeta, lambda)"), ("g5_params", "(eta, zeta, lambda)")):
            object.__setattr__(self, name, _rows(name, getattr(self, name), columns))
        object.__setattr__(self, "g3_params", tuple(row[0] for row in _rows("g3_params", _column(self.g3_params), "(kappa,)")))
        _check_angular("g4_params", self.g4_params)
        _check_angular("g5_params", self.g5_params)
        for eta, _ in self.g2_params:
            require_positive(**{"g2_params: eta": eta})
        cutoff_knots(self.cutoff, self.r_cut)  # raises

    @classmethod
    def layout(cls, species, r_cut: float, n_radial: int = 12, n_angular: int = 20, angular: str = "g4", **options) -> ACSF:
        """Functions laid out by `acsf_parameters`; ``options`` as of `ACSF`."""
        return cls(species=species, r_cut=r_cut, **acsf_parameters(r_cut, n_radial, n_angular, angular), **options)

    @property
    def n_radial(self) -> int:
        """G1, G2 and G3 functions per neighbour species."""
        return 1 + len(self.g2_params) + len(self.g3_params)

    @property
    def n_angular(self) -> int:
        """G4 and G5 functions per pair of neighbour species."""
        return len(self.g4_params) + len(self.g5_params)

    @property
    def n_features(self) -> int:
        """Radial functions times species plus angular functions times unordered pairs of species; one set when weighted."""
        n = 1 if self.weighted else len(self.species)
        return n * self.n_radial + n * (n + 1) // 2 * self.n_angular

    @cached_property
    def _functions(self) -> Functions:
        angular = np.array(self.g4_params + self.g5_params, dtype=float).reshape(-1, 3)
        eta, u = np.unique(angular[:, 0], return_inverse=True)
        powers, v = np.unique(angular[:, 1:], axis=0, return_inverse=True)
        kinds = np.zeros(len(self.species), dtype=np.int64) if self.weighted else np.arange(len(self.species))
        high, low = np.maximum.outer(kinds, kinds), np.minimum.outer(kinds, kinds)
        numbers = np.array([atomic_numbers[s] for s in self.species], dtype=float)
        return Functions(
            g2=np.array(self.g2_params, dtype=float).reshape(-1, 2),
            g3=np.array(self.g3_params, dtype=float),
            eta=eta,
            zeta=np.ascontiguousarray(powers[:, 0]),
            lam=np.ascontiguousarray(powers[:, 1]),
            u=u.ravel().astype(np.int64),
            v=v.ravel().astype(np.int64),
            n4=len(self.g4_params),
            radial_start=kinds * self.n_radial,
            angular_start=(kinds.max() + 1) * self.n_radial + (high * (high + 1) // 2 + low) * self.n_angular,
            weight=numbers if self.weighted else np.ones_like(numbers),
            table=cutoff_table(self.cutoff, self.r_cut),
            r_cut=float(self.r_cut),
        )

    @property
    def learns(self) -> bool:
        """See `Descriptor.learns`."""
        return self.scale

    def fitted(self, X):
        """See `Descriptor.fitted`: standardised by the training environments, unless ``scale`` is False."""
        return Standardized.of(self, X) if self.scale else self

    def compute(self, start, stop, arrays):
        """Symmetry functions X; no state."""
        X = backends.namespace(arrays.vectors).empty((stop - start, self.n_features))
        backends.of(X).acsf.values(start, stop, arrays, self._on(X, "_functions"), X)
        return X, ()

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        backends.of(out).acsf.pullback(start, stop, arrays, self._on(out, "_functions"), gradient, out)

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`."""
        backends.of(out).acsf_jacobian.jacobian(start, stop, env.pairs, self._on(out, "_functions"), rows, out)

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        backends.of(out).acsf_jacobian.strain_jacobian(start, stop, env.pairs, self._on(out, "_functions"), out)


def acsf_parameters(r_cut: float, n_radial: int = 12, n_angular: int = 20, angular: str = "g4") -> dict[str, list]:
    """``g2_params`` and ``g4_params`` (or ``g5_params``) that cover distances and angles evenly, for `ACSF`.

    Radial: R_s evenly spaced from 0.5 Å (less for small r_cut) to 0.5 Å below r_cut, η = 1/(2Δ²) with Δ their spacing (Gastegger et al.
    2018, doi 10.1063/1.5019667). Angular: λ = ±1, ζ = 1, 2, 4, …, and a few widths 1/√(2η) from r_cut down to 0.4 r_cut, broad ones
    first (after Imbalzano et al. 2018, doi 10.1063/1.5024611).

    Parameters
    ----------
    r_cut : Å.  n_radial, n_angular : numbers of G2 and angular functions, per species and pair of species.
    angular : ``"g4"``, or ``"g5"``: dearer, for triplets with r_jk > r_cut count too, but often more accurate for dense solids.
    """
    require_positive(r_cut=r_cut)
    for name, value in (("n_radial", n_radial), ("n_angular", n_angular)):
        if not (isinstance(value, (int, np.integer)) and value >= 0):
            raise InputError(f"`{name}` must be an integer ≥ 0, received {value!r}.")
    if angular not in ("g4", "g5"):
        raise InputError(f"`angular` must be 'g4' or 'g5', received {angular!r}.")
    edge = min(0.5, r_cut / 8)
    centres = np.linspace(edge, r_cut - edge, n_radial)
    spacing = centres[1] - centres[0] if n_radial > 1 else r_cut / 2
    return {"g2_params": [(float(0.5 / spacing**2), float(r_s)) for r_s in centres], f"{angular}_params": _angular_layout(r_cut, n_angular)}


def _angular_layout(r_cut: float, n: int) -> list[tuple[float, float, float]]:
    """``n`` triples (η, ζ, λ) for G4, λ = 1 and −1 in turn."""
    n_pairs = -(-n // 2)
    n_eta = max(round(np.sqrt(n_pairs / 2)), -(-n_pairs // len(ZETAS)))
    eta = 0.5 / np.geomspace(r_cut, 0.4 * r_cut, n_eta) ** 2 if n_eta else []
    return [(float(e), zeta, lam) for zeta in ZETAS for e in eta for lam in (1.0, -1.0)][:n]


def cutoff_knots(cutoff, r_cut: float) -> int:
    """Knots of the table of f_c."""
    wanted = CUTOFF_KNOTS * max(1.0, r_cut / (getattr(cutoff, "width", None) or r_cut))
    return checked_knots(wanted, 1, "`r_cut` over the cutoff's width")


def cutoff_table(cutoff, r_cut: float) -> np.ndarray:
    """(n_knots, 6) quintics of f_c over [0, r_cut]."""
    n_knots = cutoff_knots(cutoff, r_cut)
    r = np.linspace(0.0, r_cut, n_knots + 1)
    # The curvature as seen from inside: a cosine's does not vanish at r_cut.
    r[-1] = np.nextafter(r_cut, 0.0)
    return quintic_hermite(*cutoff(r, r_cut), r_cut / n_knots)


def _column(values):
    return [(value,) for value in values] if isinstance(values, (Sequence, np.ndarray)) else values


def _rows(name: str, values, columns: str) -> tuple[tuple[float, ...], ...]:
    """Parameters of a kind of function as rows of finite numbers, or an error that names them."""
    width = len(columns.strip("(,)").split(","))
    try:
        rows = tuple(tuple(float(x) for x in row) for row in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be a list of {columns}, received {values!r}.") from error
    for row in rows:
        if len(row) != width or not np.isfinite(row).all():
            raise InputError(f"`{name}` must be a list of {columns}, finite numbers each; it holds {row}.")
    return rows


def _check_angular(name: str, rows) -> None:
    for eta, zeta, lam in rows:
        if eta < 0:
            raise InputError(f"`{name}`: eta must not be negative, received {eta}.")
        if zeta < 1:
            raise InputError(f"`{name}`: zeta must be at least 1 for a continuous force, received {zeta}.")
        if not -1 <= lam <= 1:
            raise InputError(f"`{name}`: lambda must lie between −1 and 1, received {lam}.")
