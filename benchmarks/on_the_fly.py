"""Dynamics on the fly from an empty model: calls, errors of forces along the trajectory, and excursions that were not caught.

Expanded copper (a = 3.8 Å, EMT, 32 atoms) melts at 2500 K; ethanol at 500 K (GFN2-xTB). The reference is computed at every step beside
the run, which does not see it: an excursion is a step at which a force is wrong by more than the threshold and the reference was not asked.
``OMP_NUM_THREADS=1 python benchmarks/on_the_fly.py [NAME...] [--steps N] [--seeds N]`` writes benchmarks/results/on_the_fly.json.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from soapkrr import OnTheFly

HERE = Path(__file__).parent
RATE = 0.05


def gfn2():
    """GFN2-xTB without output."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


#: {name: structure, calculator, temperature K, time step fs, threshold eV/Å}.
RUNS = {
    "copper, 2500 K, EMT": (lambda: bulk("Cu", a=3.8, cubic=True).repeat(2), EMT, 2500, 3.0, 0.3),
    "ethanol, 500 K, GFN2": (lambda: molecule("CH3CH2OH"), gfn2, 500, 0.5, 0.3),
}


class Watched(Langevin):
    """Langevin dynamics, with the reference computed beside it at every step."""

    def __init__(self, atoms: Atoms, *args, reference=None, errors=None, **kwargs):
        super().__init__(atoms, *args, **kwargs)
        self.reference, self.errors = reference, errors

    def step(self, *args, **kwargs):
        super().step(*args, **kwargs)
        beside = self.atoms.copy()
        beside.calc = self.reference
        self.errors.append(beside.get_forces() - self.atoms.get_forces())


def run(name: str, steps: int, seed: int) -> dict:
    """One row of the results."""
    build, calculator, temperature, dt, threshold = RUNS[name]
    atoms, errors, rng = build(), [], np.random.default_rng(seed)
    scale = np.sqrt(2 * atoms.get_masses()[:, None] * units.kB * temperature)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * scale)
    settings = {"temperature_K": temperature, "friction": 0.02 / units.fs, "rng": rng, "fixcm": False}
    dynamics = partial(Watched, timestep=dt * units.fs, reference=calculator(), errors=errors, **settings)
    first, start = atoms.positions.copy(), time.process_time()
    explored = OnTheFly(None, calculator(), dynamics, threshold=threshold, rate=RATE).run(atoms, steps)
    seconds = time.process_time() - start
    largest = np.array([np.linalg.norm(e, axis=1).max() for e in errors])
    asked = np.zeros(steps, dtype=bool)
    asked[[call.step - 1 for call in explored.calls if call.step > 0]] = True
    missed = (largest > threshold) & ~asked
    return {
        "run": name,
        "seed": seed,
        "steps": steps,
        "threshold": threshold,
        "rate": RATE,
        "calls": len(explored.references),
        "last_call": explored.calls[-1].step,
        "force_rmse": float(np.sqrt(np.mean(np.concatenate(errors) ** 2))),
        "moved": float(np.sqrt(np.mean(np.sum((atoms.positions - first) ** 2, axis=1)))),
        "largest_error": float(largest.max()),
        "excursions": float(missed.mean()),
        "scale": explored.scale,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names of runs")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    file = HERE / "results" / "on_the_fly.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for name in [name for name in RUNS if name.startswith(tuple(given.names) or "")]:
        for seed in range(given.seeds):
            row = run(name, given.steps, seed)
            rows = [r for r in rows if (r["run"], r["seed"]) != (name, seed)] + [row]
            print(json.dumps(row), flush=True)
            file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
