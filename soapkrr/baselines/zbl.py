"""Ziegler–Biersack–Littmark screened repulsion of nuclei.

Source: Ziegler and Biersack 1985, doi 10.1007/978-1-4615-8103-1_3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from soapkrr.baselines.base import Baseline
from soapkrr.descriptors.cutoff import Smoothstep
from soapkrr.errors import InputError, require_positive
from soapkrr.structures import Batch, Mean, forces_and_strain

#: e²/(4πε₀), eV Å.
COULOMB = 14.3996454784
#: Universal screening function Φ(x) = Σ_k c_k exp(−d_k x), x = r/a.
AMPLITUDES = np.array([0.18175, 0.50986, 0.28022, 0.02817])
DECAYS = np.array([3.19980, 0.94229, 0.40290, 0.20162])
#: a = SCREENING/(Z₁^0.23 + Z₂^0.23), Å.
SCREENING = 0.46850

#: Inner and outer radius of the switch where none is given, in units of the sum of covalent radii.
INNER, OUTER = 0.5, 0.9


@dataclass(frozen=True)
class ZBL(Baseline):
    """Universal core repulsion, E = ½ Σ_ij s(r_ij) Z_i Z_j e²/(4πε₀ r_ij) Φ(r_ij/a), switched off between two radii.

    s falls smoothly (three times continuous) from 1 at ``r_inner`` to 0 at ``r_outer``. Atoms pushed together repel even where there are
    no data; where there are, the fit learns the difference.

    Parameters
    ----------
    r_inner, r_outer : Å, both or neither; None: 0.5 and 0.9 times the sum of the two covalent radii, pair by pair.

    Examples
    --------
    >>> from ase import Atoms
    >>> float(round(ZBL(r_inner=1.0, r_outer=2.0).pair_energy(14, 14, 0.5)[0], 2))
    470.49
    """

    r_inner: float | None = None
    r_outer: float | None = None

    def __post_init__(self):
        if self.r_inner is None and self.r_outer is None:
            return
        require_positive(r_inner=self.r_inner, r_outer=self.r_outer)
        if not self.r_inner < self.r_outer:
            raise InputError(f"`r_inner` must be smaller than `r_outer`, received {self.r_inner} and {self.r_outer}.")

    def radii(self, z1, z2) -> tuple[np.ndarray, np.ndarray]:
        """Radii (Å) between which pairs of these atomic numbers are switched off."""
        bond = covalent_radii[z1] + covalent_radii[z2]
        inner, outer = (INNER * bond, OUTER * bond) if self.r_inner is None else (self.r_inner, self.r_outer)
        return np.broadcast_to(inner, np.shape(bond)), np.broadcast_to(outer, np.shape(bond))

    def pair_energy(self, z1, z2, r) -> tuple[np.ndarray, np.ndarray]:
        """Energy (eV) and its slope (eV/Å) of pairs with atomic numbers z1, z2 at distances r (Å)."""
        z1, z2, r = np.asarray(z1), np.asarray(z2), np.asarray(r, dtype=float)
        inner, outer = self.radii(z1, z2)
        x = np.clip((r - inner) / (outer - inner), 0.0, 1.0)
        s, ds, _ = Smoothstep(width=1.0)(x, 1.0)
        value, slope = unswitched(z1, z2, r)
        return s * value, s * slope + ds / (outer - inner) * value

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`."""
        present = np.unique(batch.numbers)
        pairs = batch.close_pairs(float(self.radii(*np.meshgrid(present, present))[1].max()))
        r = np.linalg.norm(pairs.vectors, axis=1)
        value, slope = self.pair_energy(batch.numbers[pairs.i], batch.numbers[pairs.j], r)
        energies = 0.5 * np.bincount(pairs.i, value, minlength=batch.n_atoms)
        return Mean(energies, *forces_and_strain(batch, pairs, (0.5 * slope / r)[:, None] * pairs.vectors))


def unswitched(z1, z2, r) -> tuple[np.ndarray, np.ndarray]:
    """The screened Coulomb energy (eV) and its slope (eV/Å) at any distance."""
    a = SCREENING / (z1**0.23 + z2**0.23)
    terms = AMPLITUDES * np.exp(-DECAYS * (r / a)[..., None])
    screen, decay = terms.sum(axis=-1), -(terms * DECAYS).sum(axis=-1) / a
    charge = COULOMB * z1 * z2
    return charge * screen / r, charge * (decay - screen / r) / r
