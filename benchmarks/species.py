"""SOAP for many species: features, error and time of each compression, beside the uncompressed power spectrum.

Four metals as random alloys with ASE's EMT as reference, and a ten-species set that must fit in memory. Each line runs in a process of its
own, so that the peak memory is its own. ``python benchmarks/species.py [--quick]`` writes benchmarks/results/species.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

FOUR = ("Cu", "Ag", "Pt", "Au")
TEN = ("C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
HERE = Path(__file__).parent

#: {name: what is put around SOAP(**settings)}, as keywords of CompressedSOAP or of Compressed.
OPTIONS = {
    "uncompressed": {},
    "mu1nu1": {"compression": "mu1nu1"},
    "crossover": {"compression": "crossover"},
    "mu2": {"compression": "mu2"},
    "embedding, 4 given": {"similarity": 4},
    "embedding, 2 given": {"similarity": 2},
    "embedding, 3 learnt": {"embedding": 3},
    "embedding, 2 learnt": {"embedding": 2},
    "contraction, 12 learnt": {"contraction": 12},
    "contraction, 8 learnt": {"contraction": 8},
    "projection, 400": {"n_components": 400},
    "projection, 100": {"n_components": 100},
}


def alloy(species, n_cells: int, rng) -> Atoms:
    """A strained, rattled fcc cell with random occupation, labelled by EMT."""
    atoms = bulk("Au", a=3.95, cubic=True).repeat((n_cells, 2, 2))
    atoms.symbols[:] = rng.choice(species, len(atoms))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) * rng.uniform(0.96, 1.04) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.1, rng=rng)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def by_place_in_the_table(species) -> np.ndarray:
    """κ_st = exp(−d²/2·ℓ²) with d the distance in (group, period) and ℓ = 4: a guess that looks at no data."""
    place = {"C": (14, 2), "N": (15, 2), "O": (16, 2), "Al": (13, 3), "Ni": (10, 4), "Cu": (11, 4)}
    place |= {"Pd": (10, 5), "Ag": (11, 5), "Pt": (10, 6), "Au": (11, 6)}
    x = np.array([place[s] for s in species], dtype=float)
    return np.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(axis=2) / 4**2)


def descriptor(species, settings: dict, options: dict):
    from soapkrr import SOAP, Compressed, CompressedSOAP, similarity_embedding

    soap = dict(species=list(species), **settings)
    if "n_components" in options:
        return Compressed(SOAP(**soap), **options)
    if "similarity" in options:
        return CompressedSOAP(**soap, embedding=similarity_embedding(by_place_in_the_table(species), options["similarity"]))
    return CompressedSOAP(**soap, **options) if options else SOAP(**soap)


def measure(species, settings, options, n_train: int, n_test: int, n_sparse: int) -> dict:
    """Fit, predict, errors and peak memory of one line."""
    from soapkrr import DotProduct, SparseGP
    from soapkrr.metrics import error_table

    rng = np.random.default_rng(0)
    train, test = [alloy(species, 1, rng) for _ in range(n_train)], [alloy(species, 1, rng) for _ in range(n_test)]
    model = SparseGP(descriptor(species, settings, options), DotProduct(2), n_sparse=n_sparse, threads=1)
    model.fit(train[:2]).predict(test[:1])
    start = time.perf_counter()
    model.fit(train)
    fitted = time.perf_counter()
    prediction = model.predict(test)
    done = time.perf_counter()
    errors = error_table(test, prediction)
    return {
        "features": model.process_.terms[0].descriptor.n_features,
        "fit_s": fitted - start,
        "predict_us_per_atom": 1e6 * (done - fitted) / sum(map(len, test)),
        "energy_mae_mev_per_atom": errors["energy_mae_mev_per_atom"],
        "forces_mae_ev_per_angstrom": errors["forces_mae_ev_per_angstrom"],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def table(title: str, species, settings: dict, names, **sizes) -> list[dict]:
    """Print and return one line per option, each from a fresh process."""
    print(f"\n{title}\n{'':24s}{'features':>9s}{'fit s':>8s}{'µs/atom':>9s}{'meV/atom':>10s}{'meV/Å':>8s}{'peak GB':>9s}", flush=True)
    lines = []
    for name in names:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            line = pool.submit(measure, species, settings, OPTIONS[name], **sizes).result()
        lines.append({"option": name, **line})
        print(
            f"{name:24s}{line['features']:9d}{line['fit_s']:8.1f}{line['predict_us_per_atom']:9.0f}{line['energy_mae_mev_per_atom']:10.1f}"
            f"{1e3 * line['forces_mae_ev_per_angstrom']:8.1f}{line['peak_gb']:9.2f}",
            flush=True,
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sets")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "species.json")
    args = parser.parse_args()
    few = 3 if args.quick else 1
    four = dict(r_cut=5.0, n_max=5, l_max=4, sigma=0.5)
    ten = dict(r_cut=5.0, n_max=8, l_max=6, sigma=0.5)
    results = {
        "four species": table(f"Cu, Ag, Pt, Au, {four}", FOUR, four, OPTIONS, n_train=60 // few, n_test=20 // few, n_sparse=400 // few),
        "ten species": table(
            f"ten species, {ten}",
            TEN,
            ten,
            ("uncompressed", "mu1nu1", "embedding, 2 given", "embedding, 2 learnt", "contraction, 12 learnt", "projection, 400"),
            n_train=4,
            n_test=2,
            n_sparse=60,
        ),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
