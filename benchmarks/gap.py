"""A published GAP by `soapkrr.load_gap` beside quippy's calculator: processor time per atom of energy, forces and stress, and differences.

    python benchmarks/gap.py        # quippy-ase is needed, with its gap_fit on the path

The potential is made here, by gap_fit on Lennard-Jones argon: distance_2b (20 points) and soap (n_max 8, l_max 6, 5 Å, ζ 4) of 40 and
200 points.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import write
from quippy.potential import Potential

import soapkrr

SOAP = "soap l_max=6 n_max=8 cutoff=5.0 cutoff_transition_width=1.0 atom_sigma=0.5 zeta=4 delta=0.2 covariance_type=dot_product"
PAIR = "distance_2b cutoff=6.0 cutoff_transition_width=1.0 covariance_type=ard_se delta=0.5 theta_uniform=1.0 sparse_method=uniform"


def argon(n: int):
    rng, frames = np.random.default_rng(0), []
    for _ in range(n):
        atoms = bulk("Ar", a=5.3 * (1 + 0.03 * rng.normal()), cubic=True)
        atoms.positions += rng.normal(scale=0.15, size=(4, 3))
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
        atoms.info["e"], atoms.arrays["f"] = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    return frames


def fitted(folder: Path, n_sparse: int) -> Path:
    write(folder / "train.xyz", argon(60))
    gap = f"gap={{{PAIR} n_sparse=20 : {SOAP} sparse_method=cur_points n_sparse={n_sparse}}}"
    options = ["default_sigma={0.001 0.01 0.0 0.0}", "energy_parameter_name=e", "force_parameter_name=f", "e0=0.1", "gp_file=gap.xml"]
    subprocess.run(["gap_fit", "at_file=train.xyz", gap, *options], cwd=folder, check=True, capture_output=True)
    return folder / "gap.xml"


def seconds(calculator, frames) -> tuple[float, list]:
    results, start = [], time.process_time()
    for atoms in frames:
        moved = atoms.copy()
        moved.calc = calculator
        results.append((moved.get_potential_energy(), moved.get_forces(), moved.get_stress()))
    return time.process_time() - start, results


def main():
    frames = [atoms * (3, 3, 3) for atoms in argon(6)]
    n = sum(map(len, frames))
    print(f"{'points':>6} {'quippy µs/atom':>15} {'soapkrr µs/atom':>16} {'ratio':>6}   largest differences, eV/atom, eV/Å, eV/Å³")
    for n_sparse in (40, 200):
        with tempfile.TemporaryDirectory() as folder:
            xml = fitted(Path(folder), n_sparse)
            theirs, ours = Potential(param_filename=str(xml)), soapkrr.load_gap(xml, threads=1).calculator()
        rounds = [(seconds(theirs, frames), seconds(ours, frames)) for _ in range(3)]
        a, b = (1e6 * min(both[k][0] for both in rounds) / n for k in range(2))
        (_, reference), (_, found) = rounds[-1]
        off = [max(np.abs(x[k] - y[k]).max() for x, y in zip(found, reference, strict=True)) for k in range(3)]
        print(f"{n_sparse:>6} {a:>15.0f} {b:>16.1f} {a / b:>6.1f}   {off[0] / len(frames[0]):.1e} {off[1]:.1e} {off[2]:.1e}", flush=True)


if __name__ == "__main__":
    main()
