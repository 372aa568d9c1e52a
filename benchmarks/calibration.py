"""Do the error bars of a fit without knobs hold? Coverage, widths, rank correlations and novelty on structures that were not fitted.

    python benchmarks/calibration.py --data FOLDER [--only si li tio2 ethanol50 ...] [--json calibration.json]

FOLDER holds `si_train.xyz`, `si_test.xyz` and the like; alloys are labelled here with EMT. Nothing is tuned: every model is
`soapkrr.fit(train)`. Coverages are those of `metrics.calibration_table`, energies of isolated atoms left out; widths of intervals that all
configuration types share, and of weighted ones, are beside those of the plain prediction.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from sklearn.metrics import roc_auc_score

import soapkrr
from soapkrr.metrics import UNITS, calibration_table
from soapkrr.metrics.comparison import comparisons_with_std

#: Å: lattice constants of the alloys' elements.
LATTICE = {"Cu": 3.61, "Au": 4.08, "Pd": 3.89, "Ni": 3.52}

#: Errors and forces of the training data below which they vanish by symmetry, eV/Å.
VANISHING = 1e-5


def alloys(symbols, n: int, seed: int, rattle=(0.02, 0.25)) -> list:
    """Strained, rattled fcc cells of sixteen atoms of random composition, labelled with EMT."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", a=3.6, cubic=True).repeat((2, 2, 1))
        atoms.set_chemical_symbols(list(rng.choice(symbols, len(atoms), p=rng.dirichlet(np.ones(len(symbols))))))
        scale = np.mean([LATTICE[s] for s in atoms.symbols]) / 3.6 * (1 + 0.03 * rng.normal())
        atoms.set_cell(scale * atoms.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(rng.uniform(*rattle), rng=rng)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["config_type"] = "-".join(sorted(set(atoms.symbols)))
        frames.append(atoms)
    return frames


def sets(folder: Path) -> dict:
    """{name: function that gives (train, test)}."""

    def both(name):
        return [read(folder / f"{name}_{part}.xyz", ":") for part in ("train", "test")]

    def split(name, chosen):
        frames = [a for part in both(name) for a in part]
        return [a for a in frames if not chosen(kind(a))], [a for a in frames if chosen(kind(a))]

    def strained(name):
        frames = [a for part in both(name) for a in part if "AIMD" not in kind(a)]
        return [a for a in frames if not _defect(kind(a))], [a for a in frames if _defect(kind(a))]

    found = {name: lambda name=name: both(name) for name in ("si", "li", "tio2")}
    for n in (50, 300):
        found[f"ethanol{n}"] = lambda n=n: (both("ethanol")[0][:n], both("ethanol")[1][:100])
    for name in ("si", "li"):
        found[f"{name}: without AIMD, test AIMD"] = lambda name=name: split(name, lambda k: "AIMD" in k)
        found[f"{name}: strained, test defects"] = lambda name=name: strained(name)
    found["alloys: binaries, test quaternary"] = lambda: (
        [a for k, pair in enumerate(itertools.combinations(LATTICE, 2)) for a in alloys(pair, 8, k)],
        alloys(list(LATTICE), 30, 77),
    )
    found["copper: cold, test hot"] = lambda: (alloys(["Cu"], 30, 1, (0.05, 0.08)), alloys(["Cu"], 30, 2, (0.12, 0.16)))
    return found


def kind(atoms) -> str:
    return str(atoms.info.get("config_type", "-"))


def _defect(name: str) -> bool:
    return "acancy" in name or "urface" in name


def figures(train, test) -> dict:
    """Everything measured of one set."""
    start = time.perf_counter()
    model = soapkrr.fit(train)
    seconds = time.perf_counter() - start
    p = model.predict(test, uncertainty=True)
    result = {"estimator": type(model).__name__, "n_train": len(train), "n_test": len(test), "fit_seconds": round(seconds, 1)}
    result["own intervals"] = model.calibration_.config_types
    kept = [s for s, atoms in enumerate(test) if len(atoms) > 1]
    frames, p = [test[s] for s in kept], p.of(kept)
    by = "config_type" if any("config_type" in atoms.info for atoms in frames) else None
    pooled = [replace(p, config_types=None), p.weighted()]
    table, (shared, weighted) = calibration_table(frames, p, by=by), (calibration_table(frames, q, by=by) for q in pooled)
    one_std = {kind: part.within(1) for kind, part in comparisons_with_std(frames, p).items()}
    for name in [name for name in UNITS if name in table]:
        result[name] = of_kind(table[name], one_std[name], p.promised(name))
        width = f"width_90_{UNITS[name][0]}"
        for other, part, q in (("all types together", shared[name], pooled[0]), ("weighted", weighted[name], pooled[1])):
            result[name][other] = {
                "90": round(part["coverage_90"], 3),
                "width": round(part[width] / table[name][width], 3),
                "promised": round(float(q.promised(name).mean()), 3),
            }
    if "forces" in table:
        result["forces"] |= of_forces(model, train, frames, p, table["forces"])
    return result


def of_kind(part: dict, one_std: float, promised: np.ndarray) -> dict:
    """Coverage of intervals overall and of parts, of one standard deviation, and the rank correlation."""
    found = {"n": part["n"], "within one std": round(one_std, 3)}
    found |= {f"{c}": round(part[f"coverage_{c}"], 3) for c in (68, 90, 95)}
    for parts in ("species", "groups", "terciles"):
        if parts in part:
            found[parts] = {name: round(some["coverage_90"], 3) for name, some in part[parts].items()}
    return found | {"rank correlation": round(part["rank_correlation"], 3), "promised": round(float(promised.mean()), 3)}


def of_forces(model, train, frames, p, part: dict) -> dict:
    """Widths beside a constant one, and novelty beside large errors."""
    left = model.leave_out(train).of_kind("forces")
    left = left.some(np.maximum(np.abs(left.error), np.abs(left.mean)) > VANISHING)
    novelty = np.concatenate(p.novelty)
    found = {"novel": round(float((novelty > 1).mean()), 3)}
    if len(left) < 100:
        return found | {"note": "training forces vanish by symmetry"}
    constant = 2 * np.quantile(np.abs(left.error), 0.9)
    atoms = np.unique(np.column_stack([left.structure, left.component // 3]), axis=0, return_inverse=True)[1].ravel()
    threshold = np.quantile(np.sqrt(np.bincount(atoms, left.error**2)), 0.95)
    far = np.concatenate([np.linalg.norm(f - a.get_forces(), axis=1) for f, a in zip(p.forces, frames, strict=True)]) > threshold
    auc = round(float(roc_auc_score(far, novelty)), 3) if 0 < far.mean() < 1 else None
    width = round(float(part["width_90_ev_per_angstrom"] / constant), 3)
    return found | {"width over constant": width, "large errors": round(float(far.mean()), 3), "AUC": auc}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for name, make in sets(args.data).items():
        if args.only and name not in args.only:
            continue
        results[name] = figures(*make())
        print(name, json.dumps(results[name], ensure_ascii=False), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
