"""Slow, obvious twins of the fast code: neighbours by looping over images, SOAP by quadrature, dense Gaussian processes.

Nothing here is shared with the package but the descriptor *values* that the dense Gaussian processes take as input; those
have their own twin (`power_spectrum`).
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from scipy.linalg import cho_factor, cho_solve, sqrtm
from scipy.optimize import brentq
from scipy.special import gammaln, lpmv, spherical_jn

# --- neighbours ------------------------------------------------------------------------------------------------------


def neighbours(atoms: Atoms, r_cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, r_ij) of every pair with 0 < |r_ij| < r_cut, by trying all atoms in all images that could matter; sorted by i."""
    cell = complete_cell(atoms.cell.array) if atoms.pbc.any() else np.eye(3)
    inverse = np.linalg.inv(cell)
    fractional = atoms.positions @ inverse
    # A sphere of radius r_cut spans r_cut·|b| cells along an axis with reciprocal vector b; unwrapped atoms add their spread.
    reach = np.ceil(r_cut * np.linalg.norm(inverse, axis=0) + np.ptp(fractional, axis=0)).astype(int) * atoms.pbc
    images = np.array(list(product(*(range(-n, n + 1) for n in reach)))) @ cell
    i_all, j_all, vectors = [], [], []
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            r = atoms.positions[j] + images - atoms.positions[i]
            d = np.linalg.norm(r, axis=1)
            r = r[(d < r_cut) & (d > 1e-8)]
            i_all += [i] * len(r)
            j_all += [j] * len(r)
            vectors.append(r)
    return np.array(i_all, dtype=int), np.array(j_all, dtype=int), np.concatenate(vectors)


# --- angular and radial functions ------------------------------------------------------------------------------------


def real_harmonics(l_max: int, r: np.ndarray) -> np.ndarray:
    """Orthonormal real spherical harmonics (n, (l_max+1)²) in the directions of r, at index l² + l + m.

    m > 0 goes with cos mφ, m < 0 with sin |m|φ, without the Condon-Shortley sign, as in sphericart.
    """
    cos_theta = r[:, 2] / np.linalg.norm(r, axis=1)
    phi = np.arctan2(r[:, 1], r[:, 0])
    Y = np.empty((len(r), (l_max + 1) ** 2))
    for l in range(l_max + 1):
        for m in range(l + 1):
            norm = np.sqrt((2 * l + 1) / (4 * np.pi) * np.exp(gammaln(l - m + 1) - gammaln(l + m + 1)))
            legendre = (-1) ** m * norm * lpmv(m, l, cos_theta)
            Y[:, l * l + l - m] = np.sqrt(2) * legendre * np.sin(m * phi)
            Y[:, l * l + l + m] = (np.sqrt(2) if m else 1.0) * legendre * np.cos(m * phi)
    return Y


def radial_quadrature(limit: float, n: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights of ∫_0^limit r² dr."""
    x, w = np.polynomial.legendre.leggauss(n)
    r = 0.5 * limit * (x + 1)
    return r, 0.5 * limit * w * r**2


def gto_basis(r: np.ndarray, r_cut: float, n_max: int, l: int) -> np.ndarray:
    """(n_max, n_r): r^l exp(−αr²), each equal to 1e-3 at one of n_max radii from 1 Å to r_cut, Löwdin-orthonormalised by quadrature."""
    reach = np.linspace(1.0, r_cut, n_max)
    alpha = np.log(reach**l / 1e-3) / reach**2

    def primitives(x):
        return x**l * np.exp(-alpha[:, None] * x**2)

    nodes, weights = radial_quadrature(5 * r_cut)
    overlap = np.einsum("r,nr,mr->nm", weights, primitives(nodes), primitives(nodes))
    return np.linalg.inv(sqrtm(overlap).real) @ primitives(r)


def bessel_basis(r: np.ndarray, r_cut: float, n_max: int, l: int) -> np.ndarray:
    """(n_max, n_r): j_l(kr) with a zero at r_cut, normalised on the sphere, continued to all r; zeros found by scanning."""
    x = np.linspace(0.5, (n_max + l + 2) * np.pi, 4000)
    values = spherical_jn(l, x)
    brackets = np.flatnonzero(values[:-1] * values[1:] < 0)[:n_max]
    zeros = np.array([brentq(lambda t: spherical_jn(l, t), x[b], x[b + 1], xtol=1e-13) for b in brackets])
    nodes, weights = radial_quadrature(r_cut)
    norms = np.sqrt(spherical_jn(l, zeros[:, None] * nodes / r_cut) ** 2 @ weights)
    return spherical_jn(l, zeros[:, None] * r / r_cut) / norms[:, None]


BASES = {"gto": gto_basis, "bessel": bessel_basis}


# --- SOAP by quadrature ----------------------------------------------------------------------------------------------


@cache
def angular_quadrature(l_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(directions, weights, real harmonics there): Gauss-Legendre in cos θ, uniform in φ."""
    cos_theta, wt = np.polynomial.legendre.leggauss(48)
    phi = np.arange(96) * 2 * np.pi / 96
    sin_theta = np.sqrt(1 - cos_theta**2)
    grid = (np.outer(sin_theta, np.cos(phi)), np.outer(sin_theta, np.sin(phi)), np.outer(cos_theta, np.ones_like(phi)))
    directions = np.stack(grid, axis=-1).reshape(-1, 3)
    return directions, np.repeat(wt, len(phi)) * 2 * np.pi / len(phi), real_harmonics(l_max, directions)


def density_expansion(centre, neighbours, weights, r_cut, n_max, l_max, sigma, rbf) -> np.ndarray:
    """c[lm, n] = ∫ g_nl(r) Y_lm(r̂) Σ_j w_j exp(−|r − r_j|²/2σ²) d³r by three-dimensional quadrature.

    The product grid (Gauss-Legendre in r and cos θ, uniform in φ) integrates harmonics up to l = 95 exactly; a Gaussian at r_j has
    components up to l ≈ 7 r_j/σ above 1e-10. The radius goes beyond the farthest Gaussian by 9σ: the package expands over all space.
    """
    points = np.concatenate([[np.zeros(3)], neighbours])
    weights = np.concatenate([[centre], weights])
    distances = np.linalg.norm(points, axis=1)
    r, wr = radial_quadrature(distances.max() + 9 * sigma, 100)
    directions, solid, Y = angular_quadrature(l_max)
    along = directions @ points.T
    # |r − r_j|² as (radius, direction, atom).
    d2 = r[:, None, None] ** 2 + distances**2 - 2 * r[:, None, None] * along
    density = np.exp(-0.5 * d2 / sigma**2) @ weights
    projected = (density * solid) @ Y
    c = np.empty(((l_max + 1) ** 2, n_max))
    for l in range(l_max + 1):
        g = BASES[rbf](r, r_cut, n_max, l)
        for k in range(l * l, (l + 1) ** 2):
            c[k] = g @ (wr * projected[:, k])
    return c


def expansions(atoms: Atoms, symbols, weight, r_cut, n_max, l_max, sigma, rbf) -> np.ndarray:
    """(n_atoms, (l_max+1)², n_species·n_max) density expansions; ``weight(r)`` multiplies each neighbour's density."""
    i, j, r = neighbours(atoms, r_cut)
    names = np.array(atoms.get_chemical_symbols())
    c = np.zeros((len(atoms), (l_max + 1) ** 2, len(symbols) * n_max))
    for atom in range(len(atoms)):
        for s, symbol in enumerate(symbols):
            mine = (i == atom) & (names[j] == symbol)
            w = weight(np.linalg.norm(r[mine], axis=1))
            part = density_expansion(float(names[atom] == symbol), r[mine], w, r_cut, n_max, l_max, sigma, rbf)
            c[atom, :, s * n_max : (s + 1) * n_max] = part
    return c


def power_spectrum(c: np.ndarray, l_max: int) -> np.ndarray:
    """Unnormalised power spectra by the definition: l, then channels a ≤ b, off-diagonal entries times √2."""
    rows = []
    for ci in c:
        row = []
        for l in range(l_max + 1):
            for a in range(ci.shape[1]):
                for b in range(a, ci.shape[1]):
                    p = np.sqrt(8 * np.pi**2 / (2 * l + 1)) * sum(ci[k, a] * ci[k, b] for k in range(l * l, (l + 1) ** 2))
                    row.append(p * (1.0 if a == b else np.sqrt(2)))
        rows.append(row)
    return np.array(rows)


# --- dense Gaussian processes ----------------------------------------------------------------------------------------


def numerical_derivative(f, h: float = 0.01) -> np.ndarray:
    """f′(0) by three central differences extrapolated to h → 0: error O(h⁶), far below 1e-8 for the features used here."""
    coarse, middle, fine = ((np.asarray(f(t)) - np.asarray(f(-t))) / (2 * t) for t in (h, h / 2, h / 4))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return (16 * second - first) / 15


class Observables:
    """Environments of one structure with their numerical derivatives along every displacement and strain.

    A linear functional of the energy surface is a list of (weight of the value, direction in feature space) per atom.

    Attributes
    ----------
    x : (n, f) features.  numbers : (n,).  dx : (3n, n, f) ∂x/∂r.  de : (6, n, f) ∂x/∂ε, Voigt order, symmetric strain with
        ε_ab = ε_ba = ½ off the diagonal.
    """

    def __init__(self, soap, atoms: Atoms, derivatives: bool = True):
        self.x, self.numbers, self.n = soap.create(atoms), atoms.numbers, len(atoms)
        self.volume = atoms.get_volume() if atoms.pbc.all() else np.nan
        if derivatives:
            self.dx = np.array([numerical_derivative(lambda t, k=k: soap.create(_moved(atoms, k, t))) for k in range(3 * self.n)])
            self.de = np.array([numerical_derivative(lambda t, v=v: soap.create(_strained(atoms, v, t))) for v in range(6)])

    def energy(self):
        return Functional(self, value=np.ones(self.n))

    def atom(self, i: int):
        return Functional(self, value=np.eye(self.n)[i])

    def forces(self):
        return [Functional(self, direction=-d) for d in self.dx]

    def stress(self):
        return [Functional(self, direction=d / self.volume) for d in self.de]


class Functional:
    """L f = Σ_i value_i f(x_i) + direction_i · ∇f(x_i)."""

    def __init__(self, system: Observables, value=None, direction=None):
        self.x, self.numbers = system.x, system.numbers
        self.value = np.zeros(system.n) if value is None else value
        self.direction = np.zeros_like(system.x) if direction is None else direction


class DotProductKernel:
    """κ = (x·x′)^ζ; every method returns (n, m) for rows X, V (n, f) and Y, W (m, f)."""

    def __init__(self, zeta: float):
        self.zeta = zeta

    def value(self, X, Y):
        return (X @ Y.T) ** self.zeta

    def left(self, X, V, Y):
        """v·∂κ/∂x."""
        return self.zeta * (X @ Y.T) ** (self.zeta - 1) * (V @ Y.T)

    def right(self, X, Y, W):
        """w·∂κ/∂x′."""
        return self.left(Y, W, X).T

    def both(self, X, V, Y, W):
        """v·∂²κ/∂x∂x′·w."""
        u, z = X @ Y.T, self.zeta
        curved = z * (z - 1) * u ** (z - 2) * (V @ Y.T) * (X @ W.T) if z != 1 else 0.0
        return z * u ** (z - 1) * (V @ W.T) + curved


class GaussianKernel:
    """κ = exp(−|x − x′|²/2ℓ²), from differences of the vectors."""

    def __init__(self, length_scale: float):
        self.length = length_scale

    def value(self, X, Y):
        return np.exp(-0.5 * np.square(X[:, None] - Y[None]).sum(axis=2) / self.length**2)

    def left(self, X, V, Y):
        return -np.einsum("ijf,if->ij", X[:, None] - Y[None], V) / self.length**2 * self.value(X, Y)

    def right(self, X, Y, W):
        return self.left(Y, W, X).T

    def both(self, X, V, Y, W):
        d = X[:, None] - Y[None]
        along = np.einsum("ijf,if->ij", d, V) * np.einsum("ijf,jf->ij", d, W)
        return self.value(X, Y) * (V @ W.T / self.length**2 - along / self.length**4)


class ProductKernel:
    """κ = κ₁κ₂, by the product rule."""

    def __init__(self, f, g):
        self.f, self.g = f, g

    def value(self, X, Y):
        return self.f.value(X, Y) * self.g.value(X, Y)

    def left(self, X, V, Y):
        return self.f.left(X, V, Y) * self.g.value(X, Y) + self.f.value(X, Y) * self.g.left(X, V, Y)

    def right(self, X, Y, W):
        return self.left(Y, W, X).T

    def both(self, X, V, Y, W):
        f, g = self.f, self.g
        pure = f.both(X, V, Y, W) * g.value(X, Y) + f.value(X, Y) * g.both(X, V, Y, W)
        return pure + f.left(X, V, Y) * g.right(X, Y, W) + f.right(X, Y, W) * g.left(X, V, Y)


def covariance(a: Functional, b: Functional, kernel, signal: float) -> float:
    """cov(L_a f, L_b f) for k = δ² δ_zz' κ, term by term; a number stands for the exponent of a `DotProductKernel`."""
    kernel = DotProductKernel(kernel) if np.isscalar(kernel) else kernel
    same = signal**2 * (a.numbers[:, None] == b.numbers[None, :])
    total = np.outer(a.value, b.value) * kernel.value(a.x, b.x)
    total = total + a.value[:, None] * kernel.right(a.x, b.x, b.direction) + b.value[None, :] * kernel.left(a.x, a.direction, b.x)
    return float((same * (total + kernel.both(a.x, a.direction, b.x, b.direction))).sum())


def covariances(A: list[Functional], B: list[Functional], kernel, signal: float) -> np.ndarray:
    return np.array([[covariance(a, b, kernel, signal) for b in B] for a in A])


def exact_gp(observed: list[Functional], y, noise, wanted: list[Functional], kernel, signal: float):
    """(mean, variance) of functionals given noisy functionals."""
    return exact_gp_of_sums([observed], y, noise, [wanted], [kernel], [signal])


def exact_gp_of_sums(observed, y, noise, wanted, kernels, signals):
    """(mean, variance) for a sum of processes, each with its own descriptors, of which ``observed`` and ``wanted`` hold the functionals.

    Rasmussen and Williams (2006), equations 2.25 and 2.26.
    """
    terms = list(zip(observed, wanted, kernels, signals, strict=True))
    factor = cho_factor(sum(covariances(o, o, k, s) for o, _, k, s in terms) + np.diag(np.asarray(noise) ** 2))
    cross = sum(covariances(w, o, k, s) for o, w, k, s in terms)
    prior = sum(np.array([covariance(f, f, k, s) for f in w]) for _, w, k, s in terms)
    return cross @ cho_solve(factor, np.asarray(y)), prior - np.einsum("wo,ow->w", cross, cho_solve(factor, cross.T))


def _inducing(points, numbers, observed: list[Functional], noise, wanted: list[Functional], kernel, signal: float) -> tuple:
    """Covariances of the sparse points' energies with themselves, with observations over their noise, and with what is wanted."""

    class _Point:
        x, n = np.asarray(points), len(points)

    inducing = _Point()
    inducing.numbers = np.asarray(numbers)
    M = [Functional(inducing, value=row) for row in np.eye(len(points))]
    observed_rows = covariances(M, observed, kernel, signal) / np.asarray(noise)
    return covariances(M, M, kernel, signal), observed_rows, covariances(M, wanted, kernel, signal)


def dtc(points, numbers, observed: list[Functional], y, noise, wanted: list[Functional], kernel, signal: float):
    """(mean, variance) of the deterministic training conditional: the sparse points' energies are the inducing variables.

    Quiñonero-Candela and Rasmussen 2005, equations 20: mean σ⁻² k_wM A K_Mo y and variance k_ww − Q_ww + k_wM A k_Mw with
    A = (K_MM + σ⁻² K_Mo K_oM)⁻¹.
    """
    K, Kmo, Kmw = _inducing(points, numbers, observed, noise, wanted, kernel, signal)
    A = K + Kmo @ Kmo.T
    prior = np.array([covariance(w, w, kernel, signal) for w in wanted])
    mean = Kmw.T @ np.linalg.solve(A, Kmo @ (np.asarray(y) / np.asarray(noise)))
    Q = np.einsum("mw,mw->w", Kmw, np.linalg.solve(K, Kmw))
    return mean, prior - Q + np.einsum("mw,mw->w", Kmw, np.linalg.solve(A, Kmw))


def _moved(atoms: Atoms, k: int, t: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[k // 3, k % 3] += t
    return moved


def _strained(atoms: Atoms, v: int, t: float) -> Atoms:
    strained = atoms.copy()
    F = np.eye(3)
    a, b = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))[v]
    F[a, b] += t / 2
    F[b, a] += t / 2
    strained.set_cell(strained.cell.array @ F.T, scale_atoms=False)
    strained.positions = strained.positions @ F.T
    return strained


# --- selection -------------------------------------------------------------------------------------------------------


def farthest_points(X: np.ndarray, n: int, first: int) -> list[int]:
    """Farthest-point sampling with every distance computed every time."""
    picked = [first]
    while len(picked) < n:
        distances = np.linalg.norm(X[:, None, :] - X[None, picked, :], axis=2).min(axis=1)
        picked.append(int(np.argmax(distances)))
    return picked


def exact_covariance(observed: list[Functional], noise, wanted: list[Functional], kernel, signal: float) -> np.ndarray:
    """Posterior covariance of functionals given noisy functionals (Rasmussen and Williams 2006, equation 2.26)."""
    factor = cho_factor(covariances(observed, observed, kernel, signal) + np.diag(np.asarray(noise) ** 2))
    cross = covariances(wanted, observed, kernel, signal)
    return covariances(wanted, wanted, kernel, signal) - cross @ cho_solve(factor, cross.T)


def dtc_covariance(points, numbers, observed: list[Functional], noise, wanted: list[Functional], kernel, signal: float) -> np.ndarray:
    """Posterior covariance of `dtc`: K_ww − K_wM K_MM⁻¹ K_Mw + K_wM A K_Mw."""
    K, Kmo, Kmw = _inducing(points, numbers, observed, noise, wanted, kernel, signal)
    gain = np.linalg.solve(K + Kmo @ Kmo.T, Kmw) - np.linalg.solve(K, Kmw)
    return covariances(wanted, wanted, kernel, signal) + Kmw.T @ gain
