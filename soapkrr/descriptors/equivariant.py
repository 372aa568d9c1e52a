"""λ-SOAP: spherical tensors of an atom's surroundings, which turn as the atom's surroundings do.

Source: Grisafi, Wilkins, Csányi and Ceriotti 2018, doi 10.1103/PhysRevLett.120.036002.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial, sqrt

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.quip import QuipSOAP
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.structures import Batch

#: Atoms whose tensors are made at once: their expansions stay in the cache.
BLOCK = 64


@lru_cache(maxsize=1024)
def clebsch_gordan(l1: int, l2: int, l: int) -> np.ndarray:
    """⟨l1 m1 l2 m2|l m⟩ (2l+1, 2l1+1, 2l2+1), by Racah's formula (Varshalovich 1988, doi 10.1142/0270, section 8.2)."""
    f, out = factorial, np.zeros((2 * l + 1, 2 * l1 + 1, 2 * l2 + 1))
    triangle = (2 * l + 1) * f(l1 + l2 - l) * f(l + l1 - l2) * f(l + l2 - l1) / f(l1 + l2 + l + 1)
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l - m1), min(l2, l - m1) + 1):
            m = m1 + m2
            scale = triangle * f(l + m) * f(l - m) * f(l1 - m1) * f(l1 + m1) * f(l2 - m2) * f(l2 + m2)
            places = [(k, l1 + l2 - l - k, l1 - m1 - k, l2 + m2 - k, l - l2 + m1 + k, l - l1 - m2 + k) for k in range(l1 + l2 - l + 1)]
            terms = [(-1) ** p[0] / np.prod([float(f(x)) for x in p]) for p in places if min(p) >= 0]
            out[l + m, l1 + m1, l2 + m2] = sqrt(scale) * sum(terms)
    return out


def real_harmonics(l: int) -> np.ndarray:
    """U (2l+1, 2l+1) of real spherical harmonics, Y_lm = Σ_M U_mM Y_lM, from complex ones of Condon and Shortley's phase."""
    U = np.zeros((2 * l + 1, 2 * l + 1), dtype=complex)
    U[l, l] = 1.0
    for m in range(1, l + 1):
        U[l + m, l - m], U[l + m, l + m] = 1 / sqrt(2), (-1) ** m / sqrt(2)
        U[l - m, l - m], U[l - m, l + m] = 1j / sqrt(2), -1j * (-1) ** m / sqrt(2)
    return U


@lru_cache(maxsize=1024)
def coupling(l1: int, l2: int, l: int) -> np.ndarray:
    """C (2l+1, 2l1+1, 2l2+1), real: Σ_{m1 m2} C_m,m1,m2 a_m1 b_m2 of components of real harmonics turns as those of degree l.

    Where l1 + l2 + l is odd the coefficients are imaginary in this basis; −i times them is taken.
    """
    U, U1, U2 = real_harmonics(l), real_harmonics(l1), real_harmonics(l2)
    C = np.einsum("aA,ABC,bB,cC->abc", U, clebsch_gordan(l1, l2, l), U1.conj(), U2.conj())
    return np.ascontiguousarray(C.imag if (l1 + l2 + l) % 2 else C.real)


@dataclass(frozen=True)
class Equivariants:
    """p^{λμ}_{(a l)(b l′)} = Σ_{m m′} C^{λμ}_{lm l′m′} c_{lma} c_{l′m′b} of a SOAP's expansions c, over the norm of the power spectrum.

    Under a rotation they turn as real spherical harmonics (μ = −λ … λ); under inversion they are multiplied by σ(−1)^λ: l + l′ + λ is
    even for σ = 1, odd for σ = −1 (pseudo-tensors). Pairs that say the same are kept once, times √2. Those of λ = 0 and σ = 1 are the
    power spectrum itself, and |p^λ|² never exceeds a few times one.

    Parameters
    ----------
    soap : a `SOAP`.  degree : λ.  parity : σ, 1 or −1.

    Raises
    ------
    InputError : it is another descriptor, or its ``l_max`` has no pair of l for such tensors.
    """

    soap: SOAP
    degree: int
    parity: int = 1

    def __post_init__(self):
        if type(self.soap) not in (SOAP, QuipSOAP):
            raise InputError(f"`descriptor` of a tensor must be a plain `SOAP`, whose channels couple, not a {type(self.soap).__name__}.")
        if not self.pairs:
            what = f"tensors of degree {self.degree} and parity {self.parity}"
            raise InputError(f"`l_max`={self.soap.l_max} and `n_max`={self.soap.n_max} have no {what}: take larger ones.")

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(l, l′), l ≤ l′, that couple to such tensors."""
        n, found = self.soap.l_max, []
        for a in range(n + 1):
            for b in range(a, min(n, a + self.degree) + 1):
                if a + b >= self.degree and (-1) ** (a + b + self.degree) == self.parity and (a != b or self._n_equal(self.degree)):
                    found.append((a, b))
        return found

    def _n_equal(self, degree: int) -> int:
        """Pairs of channels of one l that count: those of a symmetric, or antisymmetric, product."""
        n = self.soap.n_channels
        return n * (n - 1) // 2 if degree % 2 else n * (n + 1) // 2

    @property
    def n_features(self) -> int:
        """Tensors of each atom."""
        n = self.soap.n_channels
        return sum(self._n_equal(self.degree) if a == b else n * n for a, b in self.pairs)

    def compute(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Power spectra X (n_atoms, d), tensors P (n_atoms, 2λ+1, n_features), and kinds of all atoms of a batch."""
        env = self.soap.environments(batch)
        if (self.degree, self.parity) == (0, 1):
            return env.X, env.X[:, None], env.kinds
        X, P = np.empty((batch.n_atoms, self.soap.n_features)), np.empty((batch.n_atoms, 2 * self.degree + 1, self.n_features))
        for start in range(0, batch.n_atoms, BLOCK):
            here = slice(start, min(start + BLOCK, batch.n_atoms))
            X[here], (c, norms) = env.block(here.start, here.stop)
            self.couple(c, norms, P[here])
        return X, P, env.kinds

    def couple(self, c: np.ndarray, norms: np.ndarray, out: np.ndarray) -> None:
        """Tensors of expansions c (n, (l_max+1)², n_channels) into ``out`` (n, 2λ+1, n_features)."""
        n_a, first, odd = c.shape[2], 0, self.degree % 2
        scale = np.sqrt(2 * 8 * np.pi**2) / np.where(norms > 0, norms, 1.0)
        for l1, l2 in self.pairs:
            loops = backends.of(c).equivariant
            loops.couple(c, scale, (l1, l2), coupling(l1, l2, self.degree), 1 + odd if l1 == l2 else 0, first, out)
            first += self._n_equal(self.degree) if l1 == l2 else n_a**2


@dataclass(frozen=True)
class PseudoScalars(Equivariants):
    """b_{(a l)(b l′)(d l″)} = Σ C^{l″m″}_{lm l′m′} c_{lma} c_{l′m′b} c_{l″m″d}, l + l′ + l″ odd.

    They stay as they are in a rotation and change sign in a mirror. Two densities have no such invariant, three have: it is what tells
    enantiomers apart. Divided by |p|^{3/2} of the power spectrum; triples that say the same are kept once, times √6.
    """

    degree: int = 0
    parity: int = -1

    @cached_property
    def pairs(self) -> list[tuple[int, int, int]]:
        """(l, l′, l″), ascending, of triples."""
        n = self.soap.l_max + 1
        every = [(a, b, d) for a in range(n) for b in range(a, n) for d in range(b, min(n, a + b + 1))]
        return [triple for triple in every if sum(triple) % 2 and len(self._channels(*triple)[0])]

    def _channels(self, l1: int, l2: int, l3: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Channels of the triples that count: products of equal l are antisymmetric."""
        a, b, d = np.indices((self.soap.n_channels,) * 3).reshape(3, -1)
        kept = ((l1 != l2) | (a < b)) & ((l2 != l3) | (b < d))
        return a[kept], b[kept], d[kept]

    @property
    def n_features(self) -> int:
        """Pseudo-scalars of each atom."""
        return sum(len(self._channels(*triple)[0]) for triple in self.pairs)

    def couple(self, c, norms, out):
        """See `Equivariants.couple`."""
        first, scale = 0, (8 * np.pi**2 / np.where(norms > 0, norms, 1.0) ** 2) ** 0.75
        for l1, l2, l3 in self.pairs:
            C, (a, b, d) = coupling(l1, l2, l3), self._channels(l1, l2, l3)
            x, y, z = (c[:, l * l : (l + 1) ** 2] for l in (l1, l2, l3))
            half = np.einsum("kmn,ima,inb->ikab", C, x, y, optimize=True)
            part = np.einsum("ikab,ikd->iabd", half, z, optimize=True)[:, a, b, d]
            # Three different channels, l included, stand in six orders.
            out[:, 0, first : first + len(a)] = np.sqrt(6) * scale[:, None] * part
            first += len(a)


def equivariants(soap: SOAP, degree: int, parity: int) -> Equivariants:
    """Tensors of a degree and parity: of two densities, pseudo-scalars of three."""
    return PseudoScalars(soap) if (degree, parity) == (0, -1) else Equivariants(soap, degree, parity)
