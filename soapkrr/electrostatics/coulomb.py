"""Coulomb energy of given charges: with its derivatives by positions, strain and charges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from soapkrr import backends
from soapkrr.electrostatics.boundary import background_potential, check_boundary, periodic_cell, slab_correction
from soapkrr.electrostatics.pairs import interaction, self_interaction
from soapkrr.electrostatics.reciprocal import smooth
from soapkrr.electrostatics.splitting import Splitting, Waves
from soapkrr.errors import InputError
from soapkrr.structures import VOIGT

#: e²/(4πε₀), eV Å.
COULOMB = 14.3996454784


class Electrostatics(NamedTuple):
    """Energy of charges, E = ½ Σ_i q_i φ_i among themselves, Σ_i q_i φ_i in a field.

    Attributes
    ----------
    energies : (n,) eV, of each atom; they add up to E.  potentials : (n,) eV/e, φ_i = ∂E/∂q_i.
    forces : (n, 3) eV/Å.  strain : (6,) eV, ∂E/∂ε in Voigt order; by the volume of a bulk cell it is ASE's stress.
    """

    energies: np.ndarray
    potentials: np.ndarray
    forces: np.ndarray
    strain: np.ndarray

    @property
    def energy(self) -> float:
        """E, eV."""
        return float(self.energies.sum())

    def plus(self, other: Electrostatics) -> Electrostatics:
        """The sum of both."""
        return Electrostatics(*(a + b for a, b in zip(self, other, strict=True)))


def electrostatics(positions, charges, cell, pbc, widths=None, background: str | None = None, accuracy: float = 1e-8) -> Electrostatics:
    """Coulomb energy of charges at atoms, with potentials, forces and strain derivative.

    Three periodic directions: Ewald's sum (doi 10.1002/andp.19213690304), surrounded by a conductor. Two: the same with the field of a
    slab's images taken out (Yeh and Berkowitz 1999, doi 10.1063/1.479595). None: the direct sum. Potentials of bulk average to zero.

    Parameters
    ----------
    positions : (n, 3) Å.  charges : (n,) e.  cell : (3, 3) rows, Å.  pbc : (3,) periodic directions.
    widths : (n,) σ of Gaussian charges, exp(−r²/2σ²), Å, with their energy in themselves, q²/(2√π σ) e²/4πε₀; None: point charges.
    background : "uniform" for a uniform background that neutralises a periodic cell with a net charge.
    accuracy : size of what is left out of the sums, relative to the energy of charges one bond apart; from 1e-14 to 1e-2.

    Raises
    ------
    InputError : a net charge in a periodic cell without ``background``, one periodic direction, a width or accuracy out of range.

    Examples
    --------
    >>> from ase.build import bulk
    >>> salt = bulk("NaCl", "rocksalt", a=2.0)
    >>> result = electrostatics(salt.positions, [1.0, -1.0], salt.cell.array, salt.pbc)
    >>> round(-result.energy / COULOMB, 6)
    1.747565
    """
    xp = backends.namespace(positions)
    positions, charges = xp.asarray(positions, dtype=float), xp.asarray(charges, dtype=float)
    places, cell, pbc = np.asarray(backends.host(positions)), np.asarray(cell, dtype=float), np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    widths = checked_widths(widths, len(places), xp)
    if len(charges) != len(places):
        raise InputError(f"`charges` must be one for each of the {len(places)} atoms, received {len(charges)}.")
    check_accuracy(accuracy)
    check_boundary(pbc, float(charges.sum()), background)
    if not pbc.any():
        return _direct(positions, charges, widths)
    box = periodic_cell(places, cell, pbc, accuracy)
    volume = abs(np.linalg.det(box))
    split = Splitting.of(len(places), volume, 0.0 if widths is None else float(widths.max()), accuracy)
    potentials, gradients, strain = smooth(positions @ xp.asarray(np.linalg.inv(box)), charges, Waves.of(box, split))
    near, forces, near_strain = _near(positions, charges, widths, box, split)
    uniform = background_potential(charges, split.alpha, volume)
    potentials += near + self_interaction(split.alpha, len(places), widths, xp) * charges + uniform
    forces -= charges[:, None] * gradients
    strain += near_strain
    strain[:3] -= 0.5 * uniform * charges.sum()
    if not pbc.all():
        more, more_gradients, _, more_strain = slab_correction(places, backends.host(charges), box)
        potentials += xp.asarray(more)
        forces -= charges[:, None] * xp.asarray(more_gradients)
        strain += xp.asarray(np.array([more_strain[a, b] for a, b in VOIGT]))
    return _scaled(charges, potentials, forces, strain)


def check_accuracy(accuracy: float) -> None:
    """Raise `InputError` for what sums in double precision cannot keep, or nobody wants."""
    if not 1e-14 <= accuracy <= 1e-2:
        raise InputError(f"`accuracy` must be between 1e-14 and 1e-2, received {accuracy!r}.")


def checked_widths(widths, n_atoms: int, xp):
    """(n_atoms,) positive widths; None for points."""
    if widths is None:
        return None
    widths = xp.asarray(widths, dtype=float)
    if widths.shape != (n_atoms,) or not bool((widths > 0).all()):
        raise InputError(f"`widths` must be a positive number (Å) for each of the {n_atoms} atoms, or None for point charges.")
    return widths


def _scaled(charges, potentials, forces, strain) -> Electrostatics:
    return Electrostatics(0.5 * COULOMB * charges * potentials, COULOMB * potentials, COULOMB * forces, COULOMB * strain)


def _near(positions, charges, widths, box, split: Splitting):
    """Potentials, forces and strain derivative of the pairs within the cutoff."""
    loops = backends.loops(backends.namespace(positions))
    pairs = loops.neighbours.neighbours(backends.host(positions), box, np.ones(3, dtype=bool), split.r_cut)
    return loops.coulomb.near_sums(pairs, charges, split.alpha, widths)


def _direct(positions, charges, widths) -> Electrostatics:
    """The sum over all pairs, row blocks of atoms at a time."""
    xp, n = backends.namespace(positions), len(charges)
    potentials, fields, strain = xp.empty(n), xp.empty((n, 3)), xp.zeros((3, 3))
    step = max(1, (1 << 20) // n)
    for start in range(0, n, step):
        own = slice(start, min(start + step, n))
        vectors = positions[None, :, :] - positions[own, None, :]
        r = xp.sqrt(xp.einsum("ija,ija->ij", vectors, vectors))
        itself = xp.arange(start, own.stop)[:, None] == xp.arange(n)
        r = xp.where(itself, 1.0, r)
        sigma = () if widths is None else (widths[own, None], widths[None, :])
        value, slope = interaction(0.0, r, *sigma)
        value, slope = (xp.where(itself, 0.0, part) for part in (value, slope))
        potentials[own] = value @ charges
        fields[own] = xp.einsum("ij,j,ija->ia", slope / r, charges, vectors)
        strain += 0.5 * xp.einsum("i,ij,j,ija,ijb->ab", charges[own], slope / r, charges, vectors, vectors, optimize=True)
    potentials += self_interaction(0.0, n, widths, xp) * charges
    return _scaled(charges, potentials, charges[:, None] * fields, xp.stack([strain[a, b] for a, b in VOIGT]))
