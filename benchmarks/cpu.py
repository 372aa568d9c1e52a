"""Time the CPU loops, each beside the bare matrix products of the same shapes, in one run.

    python benchmarks/cpu.py [--repeats 15] [--output results.json]

Silicon (1,000 rattled atoms) and small molecules of C, H, N and O, SOAP r_cut 5 Å, l_max 6, σ 0.5 Å, ζ 4, 1,000 sparse points. Timings of
one figure and of its products alternate, so that other work on the machine falls on both; medians and least times are given.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from run import HERE, SETTINGS, alternating, bare_products, crystal, machine

from soapkrr import SOAP, DotProduct, SparseGP
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.structures import Batch
from soapkrr.threads import default_threads, serial_blas

MOLECULES = ("CH3CH2OH", "CH3CH2NH2", "CH3CONH2", "HCOOH", "CH3NO2", "N2H4")


def figures(times: dict[str, np.ndarray], n_atoms: int) -> dict:
    """µs per atom, median and least, and the ratio of each to the ``products`` where there are any."""
    out = {}
    for name, values in times.items():
        out[name] = {"median_us_per_atom": 1e6 * float(np.median(values)) / n_atoms, "least_us_per_atom": 1e6 * values.min() / n_atoms}
        if "products" in times and name != "products":
            out[name]["to_products"] = float(np.median(values) / np.median(times["products"]))
            out[name]["to_products_of_least"] = values.min() / times["products"].min()
    return out


def labelled(atoms, **results):
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def silicon_model() -> SparseGP:
    """Fitted to the energies of the package's silicon data."""
    frames = [labelled(atoms.copy(), energy=atoms.get_potential_energy()) for atoms in read(HERE.parent / "data/silicon/train.xyz", ":")]
    return SparseGP(SOAP(species=["Si"], **SETTINGS), DotProduct(zeta=4), n_sparse=1000).fit(frames)


def molecules(n: int, seed: int) -> list:
    """Rattled molecules with energies of the effective-medium theory."""
    frames, rng = [], np.random.default_rng(seed)
    for k in range(n):
        atoms = molecule(MOLECULES[k % len(MOLECULES)])
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        frames.append(labelled(atoms, energy=atoms.get_potential_energy()))
    return frames


def measure_prediction(model: SparseGP, frames, repeats: int) -> dict:
    """Energy, forces and stress on all threads and on one; how far the two differ."""
    batch = Batch.from_atoms(frames)
    single = SparseGP(**model.get_params(deep=False)).set_params(threads=1)
    vars(single).update({name: value for name, value in vars(model).items() if name.endswith("_")})

    many, one = (
        alternating(repeats, products=bare_products(m, batch.numbers, threads), efs=partial(m.predict, frames))
        for m, threads in ((model, default_threads()), (single, 1))
    )
    a, b = (np.concatenate(m.predict(frames).forces) for m in (model, single))
    out = figures(many, batch.n_atoms) | {
        "one_thread": figures(one, batch.n_atoms),
        "threads_change_forces_by": float(np.abs(a - b).max() / np.abs(a).max()),
    }
    return out | {
        "features": model.process_.terms[0].descriptor.n_features,
        "neighbours": len(batch.pairs(SETTINGS["r_cut"]).j) / batch.n_atoms,
    }


def measure_descriptor(model: SparseGP, frames, repeats: int) -> dict:
    """On one thread: neighbour list, values, values and full Jacobian; force and strain rows of a fit beside the products they need."""
    descriptor, batch = model.process_.terms[0].descriptor, Batch.from_atoms(frames)
    n, few = batch.n_atoms, 32

    def jacobian():
        env = descriptor.environments(batch)
        for start in range(0, n, 8):
            env.displaced(start, min(start + 8, n))

    with serial_blas():
        design = DesignRows(model.process_.terms[0], batch)
        design.energy()  # makes the kernel's derivatives, once per batch
        blocks = [design.env.displaced(start, start + 8) for start in range(0, few, 8)]
        parts = [(b.of_species(s)[0].reshape(-1, x.shape[1]), x) for b in blocks for s, x in enumerate(model.process_.terms[0].points)]
        functions = {
            "neighbours": lambda: Batch.from_atoms(frames).pairs(descriptor.r_cut),
            "values": lambda: descriptor.environments(batch).X,
        }
        out = figures(alternating(repeats, **functions, values_and_jacobian=jacobian), n)
        rows = alternating(max(repeats // 3, 3), products=lambda: [J @ x.T for J, x in parts], rows=lambda: design.forces(0, few))
        out["force_rows"] = figures(rows, few)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "cpu.json")
    options = parser.parse_args()
    results = {"machine": machine()}
    model, frames = silicon_model(), [crystal(5)]
    results["silicon"] = measure_prediction(model, frames, options.repeats) | {"loops": measure_descriptor(model, frames, options.repeats)}
    for n_max in (6, 8):
        descriptor = SOAP(species=["C", "H", "N", "O"], **{**SETTINGS, "n_max": n_max})
        model = SparseGP(descriptor, DotProduct(zeta=4), n_sparse=1000).fit(molecules(160, 0))
        frames = molecules(120, 1)
        prediction = measure_prediction(model, frames, options.repeats)
        results[f"molecules, n_max {n_max}"] = prediction | {"loops": measure_descriptor(model, frames[:20], options.repeats)}
    text = json.dumps(results, indent=1)
    print(text)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
