"""A nudged elastic band on a surrogate, which predicts all images at once."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB

from soapkrr.active.surrogate import Reference
from soapkrr.estimators.gaussian_process import GaussianProcess

#: Width, Å, within which a surrogate is bent to the reference at one structure.
NEAR = 0.3


class Bent:
    """A surrogate bent so that energy and forces near one structure are those of the reference.

    E(x) + [ΔE − ΔF·(x − x₀)] exp(−|x − x₀|²/2w²), ΔE and ΔF what the reference has more at x₀: first-order consistent there, and unchanged
    far from it (w: `NEAR`, of all coordinates together).
    """

    def __init__(self, model: GaussianProcess, at: Reference | None = None):
        self.model, self.at = model, None if at is None else at.atoms.positions
        if at is not None:
            p = model.predict(at.atoms)
            self.energy, self.forces = at.energy - float(p.energy[0]), at.forces - p.forces[0]

    def predict(self, images: list[Atoms]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Energies (n,), eV, and forces, (n_atoms, 3) eV/Å, of structures."""
        p = self.model.predict(images)
        energies, forces = np.array(p.energy, dtype=float), list(p.forces)
        if self.at is not None:
            for k, image in enumerate(images):
                energy, force = self._more(image.positions - self.at)
                energies[k], forces[k] = energies[k] + energy, forces[k] + force
        return energies, forces

    def _more(self, way: np.ndarray) -> tuple[float, np.ndarray]:
        """What is added to energy and forces."""
        weight = np.exp(-0.5 * np.sum(way**2) / NEAR**2)
        energy = weight * (self.energy - np.sum(self.forces * way))
        return energy, weight * self.forces + energy * way / NEAR**2


class Band(NEB):
    """`ase.mep.NEB` with energies and forces of all images by one prediction; the ends have those of the reference."""

    def __init__(self, images: list[Atoms], surrogate: Bent, **kwargs):
        super().__init__(images, method="improvedtangent", allow_shared_calculator=True, **kwargs)
        self.surrogate = surrogate

    def get_forces(self):
        """See `NEB.get_forces`."""
        images = self.images[1:-1]
        energies, forces = self.surrogate.predict(images)
        for image, energy, force in zip(images, energies, forces, strict=True):
            image.calc = SinglePointCalculator(image, energy=energy, forces=force)
        return super().get_forces()
