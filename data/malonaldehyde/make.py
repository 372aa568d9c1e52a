"""Make the set of malonaldehyde: structures, labels by PySCF (PBE0/def2-SVP), train.xyz and test.xyz.

    python make.py                  do everything; finished structures are kept in cache/, so it can be stopped and restarted
    python make.py --write          only write train.xyz and test.xyz from the structures finished so far

Needs ASE, PySCF and tblite.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from labelling import DataSet  # noqa: E402

COUNTS = {"md_300K": (60, 60), "md_600K": (60, 60), "proton_transfer": (40, 20), "isolated_atom": (3, 0)}

#: The enol form with its internal hydrogen bond O-H...O, Å.
PLANAR = Atoms(
    "OCCCOHHHH",
    positions=[
        [-1.27, -0.75, 0.0],  # O of the aldehyde
        [-1.21, 0.49, 0.0],
        [0.0, 1.24, 0.0],
        [1.19, 0.57, 0.0],
        [1.28, -0.75, 0.0],  # O of the enol
        [0.37, -1.11, 0.0],  # the proton that is transferred
        [-2.15, 1.08, 0.0],
        [-0.01, 2.32, 0.0],
        [2.14, 1.10, 0.0],
    ],
)


def tight_binding(atoms: Atoms) -> Atoms:
    """A copy with GFN2-xTB, which draws structures but labels none."""
    from tblite.ase import TBLite

    new = atoms.copy()
    new.calc = TBLite(method="GFN2-xTB", verbosity=0)
    return new


@cache
def trajectory(temperature: float, seed: int) -> list[Atoms]:
    """120 structures, 25 fs apart, after half a picosecond."""
    atoms = tight_binding(PLANAR)
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=rng)
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    frames = []
    dynamics.attach(lambda: frames.append(atoms.copy()), interval=50)
    dynamics.run(1000 + 120 * 50)
    for frame in frames:
        frame.set_momenta(None)
        frame.positions -= frame.positions.mean(axis=0)
    return frames[-120:]


def make(kind: str, rng: np.random.Generator, index: int) -> Atoms:
    """The structure of one job; those to test come from trajectories of their own."""
    if kind == "isolated_atom":
        return Atoms("CHO"[index])
    test = bool(rng.bit_generator.seed_seq.entropy[1])
    if kind.startswith("md"):
        return trajectory(float(kind[3:6]), 1 + test)[2 * index + 1].copy()
    atoms = trajectory(300.0, 1 + test)[2 * index].copy()  # the proton anywhere between the oxygen atoms
    donor, acceptor = atoms.positions[4], atoms.positions[0]
    axis = (acceptor - donor) / np.linalg.norm(acceptor - donor)
    span = np.linalg.norm(acceptor - donor)
    along = rng.uniform(0.95, span - 0.95) if span > 1.95 else span / 2
    across = np.array([0.0, 0.0, 1.0]) * rng.normal(scale=0.08) + np.cross(axis, [0.0, 0.0, 1.0]) * rng.normal(scale=0.1)
    atoms.positions[5] = donor + along * axis + across
    return atoms


def label(atoms: Atoms) -> Atoms:
    """Copy with energy and forces: PBE0/def2-SVP, density fitting; free atoms by Hund's rule."""
    from pyscf import dft, gto

    free = len(atoms) == 1
    spin = {"C": 2, "H": 1, "O": 2}[atoms.symbols[0]] if free else 0
    molecule = gto.M(atom=[(a.symbol, a.position) for a in atoms], basis="def2-svp", spin=spin, verbose=0)
    method = (dft.UKS if free else dft.RKS)(molecule, xc="pbe0").density_fit()
    method.conv_tol, method.grids.level = 1e-10, 4
    method.kernel()
    if not method.converged:
        raise RuntimeError("the self-consistent field did not converge")
    gradients = method.nuc_grad_method()
    gradients.grid_response = True
    forces = np.zeros((1, 3)) if free else -gradients.kernel() * units.Hartree / units.Bohr
    new = atoms.copy()
    new.calc = SinglePointCalculator(new, energy=method.e_tot * units.Hartree, forces=forces)
    return new


if __name__ == "__main__":
    DataSet(HERE, COUNTS, make, label).main(__doc__)
