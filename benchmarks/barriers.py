"""Barriers: reference calls of a climbing-image band with a surrogate and without one, and what both find.

EMT as reference. Ends are relaxed to 0.01 eV/Å, bands have improved tangents and start from the image-dependent pair potential; the band
without surrogate is ASE's with MDMin. Calls are energies and forces of one structure, the ends counted.
``python benchmarks/barriers.py [NAME...]`` writes benchmarks/results/barriers.json; without names it runs all.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc100, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import LBFGS, MDMin

from soapkrr import SurrogateNEB

HERE = Path(__file__).parent


class Counting(EMT):
    """EMT that counts."""

    calls = 0

    def calculate(self, *args, **kwargs):
        self.calls += 1
        super().calculate(*args, **kwargs)


def relaxed(atoms: Atoms) -> Atoms:
    """The structure at rest."""
    atoms.calc = EMT()
    LBFGS(atoms, logfile=None).run(fmax=0.01, steps=500)
    return atoms


def hop() -> tuple[Atoms, Atoms, int]:
    """Gold on Al(100), from one hollow to the next: the tutorial of ASE."""
    slab = fcc100("Al", size=(2, 2, 3))
    add_adsorbate(slab, "Au", 1.7, "hollow")
    slab.center(axis=2, vacuum=4.0)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    initial = relaxed(slab)
    final = initial.copy()
    final.positions[-1, 0] += final.cell[0, 0] / 2
    return initial, relaxed(final), 7


def island(size: tuple[int, int, int], fixed: int, vacuum: float) -> tuple[Atoms, Atoms, int]:
    """Seven platinum atoms on Pt(111) that glide from fcc to hcp hollows."""
    slab = fcc111("Pt", size=size, orthogonal=True, vacuum=vacuum)
    z = slab.positions[:, 2]
    layers = np.unique(np.round(z, 3))
    third, second = (slab.positions[np.abs(z - layers[-k]) < 0.1] for k in (3, 2))
    middle = third[np.argmin(np.linalg.norm(third[:, :2] - slab.cell.lengths()[:2] / 2, axis=1))]
    d, angles = 3.92 / np.sqrt(2), np.arange(6) * np.pi / 3
    ring = np.vstack([[0.0, 0.0], d * np.column_stack([np.cos(angles), np.sin(angles)])])
    top = np.full((7, 1), layers[-1] + layers[1] - layers[0])
    slab += Atoms("Pt7", np.hstack([middle[:2] + ring, top]))
    slab.set_constraint(FixAtoms(mask=slab.positions[:, 2] < layers[fixed - 1] + 0.1))
    initial = relaxed(slab)
    final, ways = initial.copy(), second[:, :2] - middle[:2]
    final.positions[-7:, :2] += ways[np.argmin(np.linalg.norm(ways, axis=1))]
    return initial, relaxed(final), 11


def step() -> tuple[Atoms, Atoms, int]:
    """A copper atom on a terrace of Cu(100) goes down over its edge."""
    a = 3.61
    d = a / np.sqrt(2)
    slab = fcc100("Cu", size=(6, 3, 3), a=a, vacuum=6.0)
    z = slab.positions[:, 2]
    layers = np.unique(np.round(z, 3))
    slab.set_constraint(FixAtoms(mask=z < layers[0] + 0.1))
    slab = slab[(z < layers[-1] - 0.1) | (slab.positions[:, 0] < 2.6 * d)]
    ends = []
    for place in ((1.5 * d, 1.5 * d, layers[-1] + a / 2), (3.0 * d, d, layers[-1])):
        atoms = slab.copy()
        atoms += Atoms("Cu", [place])
        ends.append(relaxed(atoms))
    return *ends, 11


PATHS = {
    "Au on Al(100), 13 atoms": hop,
    "a heptamer on Pt(111), 97 atoms": lambda: island((5, 6, 3), 1, 6.0),
    "a step on Cu(100), 46 atoms": step,
    "a heptamer on Pt(111), 343 atoms": lambda: island((7, 8, 6), 3, 8.0),
}


def without(initial: Atoms, final: Atoms, n: int, fmax: float) -> tuple[float, int]:
    """Barrier, eV, and calls of ASE's band."""
    images = [initial.copy() for _ in range(n - 1)] + [final.copy()]
    for image in images:
        image.calc = Counting()
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate("idpp")
    MDMin(band, logfile=None).run(fmax=fmax, steps=500)
    energies = [image.get_potential_energy() for image in images]
    return max(energies) - energies[0], sum(image.calc.calls for image in images)


def compare(name: str, fmax: float) -> dict:
    """One row of the results."""
    initial, final, n = PATHS[name]()
    barrier, calls = without(initial, final, n, fmax)
    start = time.process_time()
    path = SurrogateNEB(initial, final, EMT(), n_images=n).run(fmax)
    seconds = time.process_time() - start
    found = {"barrier": path.barrier, "std": path.std, "force": path.force, "calls": path.calls, "converged": bool(path.converged)}
    return {"path": name, "fmax": fmax, "images": n, "mdmin": {"barrier": barrier, "calls": calls}, **found, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names of paths")
    wanted = tuple(parser.parse_args().names) or tuple(PATHS)
    file = HERE / "results" / "barriers.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for name in [name for name in PATHS if name.startswith(wanted)]:
        for fmax in (0.05, 0.01):
            row = compare(name, fmax)
            rows = [r for r in rows if (r["path"], r["fmax"]) != (name, fmax)] + [row]
            print(json.dumps(row))
            file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
