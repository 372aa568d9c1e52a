"""Tiny labelled structures and a tiny model, for tests of everything around the regression."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr import SOAP, DotProduct, SparseGP

EPSILON, SIGMA, R_C = 0.01, 3.4, 6.0


def labelled(atoms: Atoms, **results) -> Atoms:
    """A copy that carries exactly these labels."""
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def lennard_jones(atoms: Atoms, *names: str) -> Atoms:
    """A copy with Lennard-Jones labels of these names (energy, forces, stress)."""
    probe = atoms.copy()
    probe.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=R_C, smooth=True)
    return labelled(atoms, **{name: probe.calc.get_property(name, probe) for name in names})


def crystals(n: int = 6, seed: int = 0) -> list[Atoms]:
    """Rattled and strained argon cells of four atoms with energy, forces and stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Ar", cubic=True, a=5.3 + 0.3 * rng.standard_normal())
        atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
        frames.append(lennard_jones(atoms, "energy", "forces", "stress"))
    return frames


def soap(species=("Ar",), **changes) -> SOAP:
    """A small descriptor."""
    return SOAP(**({"species": species, "r_cut": 4.5, "n_max": 3, "l_max": 2, "sigma": 0.5} | changes))


def small_gp(species=("Ar",), **changes) -> SparseGP:
    """A small unfitted model."""
    return SparseGP(soap(species), DotProduct(zeta=2), **({"n_sparse": 12} | changes))


#: Options of the command line that make the same small model.
OPTIONS = ["--r-cut", "4.5", "--n-max", "3", "--l-max", "2", "--zeta", "2", "--n-sparse", "12", "--no-scaling"]
OPTIONS += ["--noise-energy", "0.002", "--noise-forces", "0.05", "--noise-stress", "0.002", "--signal", "3"]


def assert_same_predictions(one, other, frames: list[Atoms], atol: float = 1e-8) -> None:
    """Two models predict the same means and standard deviations, in eV and Å."""
    p, q = one.predict(frames, uncertainty=True), other.predict(frames, uncertainty=True)
    for name in ("energy", "energy_std", "stress", "stress_std"):
        np.testing.assert_allclose(getattr(p, name), getattr(q, name), rtol=0, atol=atol)
    for name in ("energies_std", "forces", "forces_std"):
        np.testing.assert_allclose(np.concatenate(getattr(p, name)), np.concatenate(getattr(q, name)), rtol=0, atol=atol)
