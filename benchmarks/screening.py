"""Screening: how long it takes, and how many labels the decision needs beside random choice and the largest standard deviation.

    python benchmarks/screening.py speed [--n 1000] [--output results.json]
    python benchmarks/screening.py labels --data FOLDER [--pools alloy ethanol tio2] [--seeds 20] [--output results.json]

``speed``: Cu–Au structures of 8 to 64 atoms, a sparse model of 1,000 points (SOAP, r_cut 5 Å, n_max 6, l_max 4), from extended XYZ into the
database, the table and the page, in a fresh process; seconds of the clock and of the processor, and peak memory.

``labels``: pools whose labels are all known and held back. Each run starts from 20 labels drawn at random, to which an exact process is
fitted (energies only; noise 1 meV/atom, the default signal and one SOAP for all pools: evidence of so few energies takes everything for
noise in some of the runs); then five labels at a time are chosen, and the process is conditioned on them. Counted, the first 20
included, are the labels after which the ten lowest of the ranking (labels where known, predictions elsewhere) are and remain the true ten
lowest, and the labels among which all ten are. A run ends where both are so. Figures are those that nine of ten runs need.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from run import HERE, machine

from soapkrr import SOAP, Campaign, DotProduct, GaussianProcess, SparseGP, load, screen

BEST, START, BATCH, POOL = 10, 20, 5, 300
CUBIC = {"Cu": 3.61, "Au": 4.08}


def alloy(rng, repeat) -> Atoms:
    """A random occupation of fcc sites by Cu and Au, lattice constant by Vegard's rule."""
    atoms = bulk("Cu", a=CUBIC["Cu"], cubic=True).repeat(repeat)
    n = int(rng.integers(0, len(atoms) + 1))
    atoms.numbers[rng.choice(len(atoms), n, replace=False)] = 79
    x = n / len(atoms)
    atoms.set_cell(atoms.cell * ((1 - x) + x * CUBIC["Au"] / CUBIC["Cu"]), scale_atoms=True)
    return atoms


def labelled(atoms: Atoms, energy: float | None = None) -> Atoms:
    """A structure with its energy only, EMT's if none is given."""
    atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    energy = EMT().get_potential_energy(atoms) if energy is None else energy
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def pool(name: str, data: Path | None) -> tuple[list[Atoms], dict | None]:
    """Structures with held-back energies, and reference energies of a formation energy."""
    if name == "alloy":
        rng = np.random.default_rng(1)
        frames = {tuple(a.numbers): labelled(a) for a in (alloy(rng, (2, 2, 1)) for _ in range(3 * POOL))}
        references = {symbol: labelled(bulk(symbol, a=a)).get_potential_energy() for symbol, a in CUBIC.items()}
        return _numbered(list(frames.values())[:POOL]), references
    if data is None:
        raise SystemExit("--data FOLDER is needed for every pool but alloy")
    frames = read(data / f"{name}_test.xyz", ":")
    frames = [labelled(a, a.get_potential_energy()) for a in frames if len(a) <= 50]
    return _numbered(frames[:POOL]), None


def _numbered(frames: list[Atoms]) -> list[Atoms]:
    for k, atoms in enumerate(frames):
        atoms.info["candidate"] = k
    return frames


def one_run(frames: list[Atoms], references: dict | None, seed: int) -> dict[str, tuple[int, int]]:
    """{strategy: (labels until the ranking's best are right and remain so, labels until the best are all labelled)}."""
    start = np.random.default_rng(seed).choice(len(frames), START, replace=False)
    training = [frames[k] for k in start]
    species = sorted({symbol for a in frames for symbol in a.get_chemical_symbols()})
    soap = SOAP(species, r_cut=5.0, n_max=4, l_max=3, sigma=0.5)
    model = GaussianProcess(soap, DotProduct(2), noise={"energy": 0.001}, baseline="least-squares", threads=2)
    model.fit(training)
    bare = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in frames]
    campaign = Campaign(model, bare, best=BEST, references=references)
    campaign.add([frames[k] for k in start if k in campaign.frames])
    return {name: _followed(choice, copy.deepcopy(campaign), frames, np.random.default_rng(seed)) for name, choice in STRATEGIES.items()}


def _followed(choice, campaign: Campaign, frames: list[Atoms], rng) -> tuple[int, int]:
    numbers = np.array(list(campaign.frames))
    offset = campaign.settings.quantity.offset
    truth = np.array([(frames[k].get_potential_energy() - offset(frames[k])) / len(frames[k]) for k in numbers])
    limit = np.sort(truth)[BEST - 1] + 1e-7
    right, found = [], None
    while True:
        known = np.isin(numbers, list(campaign.labels))
        best = np.argsort(campaign.belief.value, kind="stable")[:BEST]
        right.append((int(known.sum()), bool((truth[best] <= limit).all())))
        found = int(known.sum()) if found is None and known[truth <= limit].all() else found
        if known.all() or (found and right[-1][1]):
            break
        picked = np.array(choice(campaign.belief, min(BATCH, int((~known).sum())), ~known, rng))
        campaign.add([frames[k] for k in numbers[picked]])
    wrong = max((n for n, ok in right if not ok), default=0)
    return min(n for n, _ in right if n > wrong), int(found or 0)


def _active(belief, n, allowed, rng):
    from soapkrr.active.decision import choose

    return choose(belief, n, allowed, None, BEST)


def _random(belief, n, allowed, rng):
    return rng.choice(np.flatnonzero(allowed), n, replace=False)


def _largest_std(belief, n, allowed, rng):
    return np.argsort(np.where(allowed, -belief.std, np.inf), kind="stable")[:n]


def _lowest(belief, n, allowed, rng):
    return np.argsort(np.where(allowed, belief.value, np.inf), kind="stable")[:n]


STRATEGIES = {"expected drop": _active, "random": _random, "largest std": _largest_std, "lowest prediction": _lowest}


def labels(names: list[str], data: Path | None, seeds: int) -> dict:
    """Labels needed in each pool by each strategy."""
    results = {}
    for name in names:
        frames, references = pool(name, data)
        runs = []
        for seed in range(seeds):
            runs.append(one_run(frames, references, seed))
            print(name, seed, runs[-1], flush=True)
        out: dict = {"structures": len(frames), "atoms": sum(map(len, frames)), "runs": seeds}
        for strategy in STRATEGIES:
            values = np.array([run[strategy] for run in runs])
            needed = np.sort(values, axis=0)[int(np.ceil(0.9 * seeds)) - 1]
            out[strategy] = {
                "ranking_right_in_90_percent": int(needed[0]),
                "ranking_right_median": float(np.median(values[:, 0])),
                "all_labelled_in_90_percent": int(needed[1]),
                "all_labelled_median": float(np.median(values[:, 1])),
            }
        for key in ("ranking_right_in_90_percent", "all_labelled_in_90_percent"):
            out[f"{key}_to_random"] = out["expected drop"][key] / out["random"][key]
            out[f"{key}_to_largest_std"] = out["expected drop"][key] / out["largest std"][key]
        results[name] = out
        print(json.dumps(out, indent=1), flush=True)
    return results


def speed(n: int) -> dict:
    """Time and memory of a screening of n candidates, in a process of its own."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        shapes = [(2, 1, 1), (2, 2, 1), (3, 2, 1), (2, 2, 2), (3, 2, 2), (4, 2, 2)]  # 8 to 64 atoms
        train = []
        for k in range(40):
            atoms = alloy(rng, shapes[k % 4])
            atoms.rattle(0.1, rng=rng)
            atoms.calc = EMT()
            atoms.get_forces()
            train.append(atoms)
        soap = SOAP(["Cu", "Au"], r_cut=5.0, n_max=6, l_max=4, sigma=0.5)
        SparseGP(soap, DotProduct(3), n_sparse=1000, baseline="least-squares").fit(train).save(f"{folder}/m.soapkrr")
        frames = []
        for k in range(n):
            frames.append(alloy(rng, shapes[k % len(shapes)]))
            frames[-1].rattle(0.1, rng=rng)
        write(f"{folder}/c.xyz", frames)
        command = [sys.executable, __file__, "one", folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return {"candidates": n, "atoms": sum(map(len, frames)), **found}


def one(folder: str) -> dict:
    """One screening, timed."""
    start, processor = time.perf_counter(), time.process_time()
    found = screen(load(f"{folder}/m.soapkrr", threads=2), f"{folder}/c.xyz", f"{folder}/o.db", next=10)
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "ranked": len(found.ranked),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["speed", "labels", "one"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pools", nargs="+", default=["alloy", "ethanol", "tio2"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "screening.json")
    args = parser.parse_args()
    if args.what == "one":
        print(json.dumps(one(args.folder)))
        return
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    results |= {"machine": machine()}
    if args.what == "speed":
        results["speed"] = results.get("speed", {}) | {str(args.n): speed(args.n)}
    else:
        results["labels"] = results.get("labels", {}) | labels(args.pools, args.data, args.seeds)
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
