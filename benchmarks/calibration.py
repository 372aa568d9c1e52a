"""Do the error bars of a fit without knobs hold? Coverage, widths, rank correlations and novelty on structures that were not fitted.

    python benchmarks/calibration.py --data FOLDER [--only si li tio2 ethanol50 ...] [--json calibration.json]

FOLDER holds `si_train.xyz`, `si_test.xyz` and the like; alloys are labelled here with EMT. Nothing is tuned: every model is
`soapkrr.fit(train)`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import soapkrr
from soapkrr.labels import read_labels

#: Å: lattice constants of the alloys' elements.
LATTICE = {"Cu": 3.61, "Au": 4.08, "Pd": 3.89, "Ni": 3.52}

#: Components of errors, predictions and std below which a label vanishes by symmetry.
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
    p, labels = model.predict(test, uncertainty=True), read_labels(test, None)
    result = {"estimator": type(model).__name__, "n_train": len(train), "n_test": len(test), "fit_seconds": round(seconds, 1)}
    for name in ("energy", "forces", "stress"):
        having = [s for s, label in enumerate(labels) if label.has(name) and (name != "energy" or len(test[s]) > 1)]
        if having:
            result[name] = _kind(model, train, test, p, labels, name, having)
    return result


def _kind(model, train, test, p, labels, name: str, having: list[int]) -> dict:
    lower, upper = p.interval(name, 0.9)
    error, std, inside, group = [], [], [], []
    for s in having:
        reference, mean, size = (np.atleast_1d(x) for x in (getattr(labels[s], name), getattr(p, name)[s], getattr(p, f"{name}_std")[s]))
        within = (np.atleast_1d(lower[s]) <= reference) & (reference <= np.atleast_1d(upper[s]))
        live = (np.maximum(np.abs(reference - mean), size) > (VANISHING if name == "forces" else 1e-9)) & np.isfinite(reference)
        error.append(np.where(live, reference - mean, np.nan))
        std.append(size)
        inside.append(np.where(live, within, np.nan))
        group += [kind(test[s])] * int(live.sum())
    flat = [np.concatenate([np.ravel(x) for x in part]) for part in (error, std, inside)]
    known = np.isfinite(flat[0])
    errors, sizes, within, group = np.abs(flat[0][known]), flat[1][known], flat[2][known].astype(bool), np.array(group)
    found = {
        "n": int(known.sum()),
        "within 68": round(float((errors <= sizes).mean()), 3),
        "within 90": round(float(within.mean()), 3),
        "groups": {str(g): round(float(within[group == g].mean()), 3) for g in np.unique(group)},
        "terciles": [round(float(part.mean()), 3) for part in np.array_split(within[np.argsort(sizes)], 3)],
    }
    if name == "energy":
        n = np.array([len(test[s]) for s in having])
        return found | {"rank correlation": round(float(spearmanr(errors / n, sizes / n)[0]), 3)}
    return found | _of_forces(model, train, p, error, std, having, sizes) if name == "forces" else found


def _of_forces(model, train, p, error, std, having, sizes) -> dict:
    norms = np.concatenate([np.linalg.norm(np.nan_to_num(e), axis=1) for e in error])
    expected = np.concatenate([np.linalg.norm(s, axis=1) for s in std])
    novelty = np.concatenate([p.novelty[s] for s in having])
    left = model.leave_out(train).of_kind("forces")
    left = left.some(np.maximum(np.abs(left.error), np.abs(left.mean)) > VANISHING)
    found = {"rank correlation": round(float(spearmanr(norms, expected)[0]), 3), "novel": round(float((novelty > 1).mean()), 3)}
    if len(left) < 100:
        return found | {"note": "training forces vanish by symmetry"}
    half = np.concatenate([(p.interval("forces", 0.9)[1][s] - p.forces[s]).ravel() for s in having])
    constant = np.quantile(np.abs(left.error), 0.9)
    atoms = np.unique(np.column_stack([left.structure, left.component // 3]), axis=0, return_inverse=True)[1].ravel()
    threshold = np.quantile(np.sqrt(np.bincount(atoms, left.error**2)), 0.95)
    far = norms > threshold
    auc = round(float(roc_auc_score(far, novelty)), 3) if 0 < far.mean() < 1 else None
    return found | {"width over constant": round(float(half.mean() / constant), 3), "large errors": round(float(far.mean()), 3), "AUC": auc}


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
