"""Time what standard deviations and samples cost beside a plain prediction, alternated in one run.

    python benchmarks/uncertainty.py --train TRAIN.xyz [--repeats 5] [--output results.json]

Silicon, SOAP r_cut 5 Å, l_max 6, σ 0.5 Å, ζ 4, 1,000 sparse points; rattled crystals of 1,000, 8,000 and 64,000 atoms. Ratios are medians
of the ratios of consecutive runs, of wall-clock and of processor time, which other programs disturb less. Of forces' standard
deviations the bare products of Jacobians with sparse points are timed too.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from ase.io import read
from run import HERE, NOISE, SETTINGS, crystal, machine

from soapkrr import SOAP, DotProduct, SparseGP
from soapkrr.structures import Batch
from soapkrr.threads import default_threads, thread_map

#: Cells along an edge, repetitions, and what is timed beside a prediction.
SIZES = ((5, 1.0, ("energies", "energy")), (10, 0.4, ("energies", "energy")), (20, 0.2, ("energy",)))
SAMPLES, FEW = 20, 64


def alternating(repeats: int, **functions) -> dict[str, np.ndarray]:
    """Seconds (2, repeats) of each function, wall-clock and of the processor, called in turn after one warm-up."""
    times: dict[str, list] = {name: [] for name in functions}
    for k in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            function()
            if k:
                times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: np.array(values).T for name, values in times.items()}


def figures(times: dict[str, np.ndarray], n_atoms: int, beside: str) -> dict:
    """µs per atom, median and least, and the median ratio to what stands beside it in each run."""
    out = {}
    for name, (wall, processor) in times.items():
        out[name] = {
            "median_us_per_atom": 1e6 * float(np.median(wall)) / n_atoms,
            "least_us_per_atom": 1e6 * float(wall.min()) / n_atoms,
            "least_processor_us_per_atom": 1e6 * float(processor.min()) / n_atoms,
        }
        if name != beside:
            ratios = np.median(times[name] / times[beside], axis=1)
            out[name] |= {f"to_{beside}": float(ratios[0]), f"to_{beside}_of_processor_time": float(ratios[1])}
    return out


def bare_force_products(model: SparseGP, atoms) -> tuple:
    """The products of the Jacobians of ``FEW`` atoms with the sparse points, on all threads, and the number of atoms."""
    term, batch = model.process_.terms[0], Batch.from_atoms([atoms])
    env = term.descriptor.environments(batch)
    blocks = [env.displaced(a, a + 8).of_species(0)[0].reshape(-1, term.descriptor.n_features) for a in range(0, FEW, 8)]

    def products():
        for _ in thread_map(lambda J: J @ term.points[0].T, blocks, default_threads()):
            pass

    return products, FEW


def measure(model: SparseGP, repeats: int) -> dict:
    """Every figure."""
    results: dict = {}
    for cells, share, asked in SIZES:
        atoms = crystal(cells)
        functions = {f"{kind}_std": partial(model.predict, atoms, uncertainty=kind) for kind in asked}
        times = alternating(max(1, round(share * repeats)), prediction=partial(model.predict, atoms), **functions)
        results[f"{len(atoms)} atoms"] = figures(times, len(atoms), "prediction")
    atoms, samples = crystal(5), model.sample(SAMPLES)
    times = alternating(repeats, prediction=partial(model.predict, atoms), samples=partial(samples.predict, atoms))
    results[f"{SAMPLES} samples"] = figures(times, len(atoms), "prediction")
    products, few = bare_force_products(model, atoms)
    small = crystal(2)
    assert len(small) == few
    times = alternating(repeats, products=products, forces_std=partial(model.predict, small, uncertainty="forces"))
    results["forces_std"] = figures(times, few, "products")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "uncertainty.json")
    options = parser.parse_args()
    model = SparseGP(SOAP(species=["Si"], **SETTINGS), DotProduct(zeta=4), n_sparse=1000, noise=NOISE).fit(read(options.train, ":"))
    results = {"machine": machine(), **measure(model, options.repeats)}
    text = json.dumps(results, indent=1)
    print(text)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
