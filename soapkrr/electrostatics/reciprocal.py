"""The smooth part of Ewald sums, in reciprocal space, by matrix products: exp(ik·r) is a product of one phase for each lattice vector."""

from __future__ import annotations

from math import pi

from soapkrr import backends
from soapkrr.electrostatics.splitting import Waves
from soapkrr.structures import VOIGT

#: Phases of so many atoms and pairs (h₁, h₂) are held at once.
PHASES = 1 << 20


def phases(fractional, waves: Waves) -> tuple:
    """exp(2πi h f) of atoms at fractional coordinates (n, 3): (n, n_h) for each direction."""
    xp = backends.namespace(fractional)
    return tuple(xp.exp(2j * pi * fractional[:, a : a + 1] * xp.asarray(waves.h[a])) for a in range(3))


def smooth(fractional, charges, waves: Waves):
    """Potentials (n,) 1/Å, their gradients (n, 3) at the atoms and the strain derivative (6,) of ½ Σ q φ, of unit strength.

    φ_i = Σ_k G_k Re[S*_k exp(ik·r_i)], S_k = Σ_j q_j exp(ik·r_j), k = 0 left out (a background, and a surrounding conductor).
    """
    xp = backends.namespace(fractional)
    green, lattice = xp.asarray(waves.green), xp.asarray(waves.lattice)
    n1, n2, n3 = green.shape
    step = max(1, PHASES // (n1 * n2))
    blocks = [slice(start, start + step) for start in range(0, len(charges), step)]
    structure = xp.zeros((n1 * n2, n3), dtype=complex)
    for own in blocks:
        a, b, c = phases(fractional[own], waves)
        structure += (a[:, :, None] * (charges[own, None] * b)[:, None, :]).reshape(len(a), -1).T @ c
    structure = structure.reshape(green.shape)
    plain = (green * structure.conj()).reshape(-1, n3).T
    h1, h2, h3 = (xp.asarray(h) for h in waves.h)
    parts = [_at_atoms(phases(fractional[own], waves), plain, h3[:, None] * plain, (h1, h2)) for own in blocks]
    potentials, sums = (xp.concatenate(part) for part in zip(*parts, strict=True))
    return xp.real(potentials), -xp.imag(sums) @ lattice, _strain(waves, 0.5 * green * xp.abs(structure) ** 2, xp)


def _at_atoms(factors, plain, weighted, h):
    """(n,) Σ_h W a^h₁ b^h₂ c^h₃ and (n, 3) the same times h₁, h₂ and h₃: sums over h₃ by two products, h₂ and h₁ atom by atom."""
    a, b, c = factors
    xp, (h1, h2) = backends.namespace(a), h
    shape = len(a), len(h1), len(h2)
    inner = (c @ plain).reshape(shape) @ xp.stack([b, h2 * b], axis=-1)
    last = ((c @ weighted).reshape(shape) @ b[:, :, None])[..., 0]
    value = a * inner[..., 0]
    sums = xp.stack([value @ h1, (a * inner[..., 1]).sum(axis=1), (a * last).sum(axis=1)], axis=1)
    return value.sum(axis=1), sums


def _strain(waves: Waves, energies, xp):
    """(6,) Σ_k E_k (stretch k_a k_b − δ_ab)."""
    weighted, h = energies * xp.asarray(waves.stretch), [xp.asarray(h) for h in waves.h]
    square = xp.empty((3, 3))
    for a in range(3):
        for b in range(3):
            others = tuple(c for c in range(3) if c not in (a, b))
            sums = weighted.sum(axis=others)
            square[a, b] = sums @ h[a] ** 2 if a == b else (h[a] @ sums @ h[b] if a < b else h[b] @ sums @ h[a])
    lattice = xp.asarray(waves.lattice)
    tensor = lattice.T @ square @ lattice - xp.eye(3) * energies.sum()
    return xp.stack([tensor[a, b] for a, b in VOIGT])
