"""What `soapkrr.fit(train)` gives with nothing else said, row by row, beside a fit of the recipe alone (`search=False`).

    python benchmarks/auto.py FOLDER [ROW ...] [--again] [--output auto.json]

FOLDER holds NAME_train.xyz and NAME_test.xyz of published sets: si and li (mlearn, Zuo et al. 2020, doi 10.1021/acs.jpca.9b08723), ethanol
(revised MD17, Christensen and von Lilienfeld 2020, doi 10.1088/2632-2153/abba6f), tio2 (Artrith and Urban 2016, doi
10.1016/j.commatsci.2015.11.047). All choices are those of the fit, by left-out training structures; test structures are predicted once, by
the fit with its defaults. Rows that are in the output are not run again unless ``--again``; each is written as it is done.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import species_sharing
from ase.io import read

import soapkrr
from soapkrr.baselines import keep_results

HERE = Path(__file__).resolve().parent

#: What each row should reach: mean absolute errors, energies per structure (ethanol) or per atom (others).
GOALS = {
    "ethanol-50": "at most 6.9 meV, 34.5 meV/Å",
    "ethanol-50-prior-mean": "at most 3.4 meV, 17.0 meV/Å",
    "ethanol-1000": "at most 0.50 meV, 3.0 meV/Å",
    "si": "at most 2.0 meV/atom, 58 meV/Å",
    "li": "at most 0.30 meV/atom, 6.5 meV/Å",
    "tio2": "at most 1.9 meV/atom, 62 meV/Å",
    "quaternary": "within 2 × the error of left-out binaries; 90 % intervals of energies cover at least 85 %",
    "another": "the same, with other metals",
    "ten": "a smaller error with at most 1/20 of the features",
    "rare": "worst error of forces by species at most 2 × the average",
}


def processor() -> float:
    """Seconds of the processors so far, those of processes that have ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def timed(fit: Callable) -> tuple:
    """A model, and the seconds that its fit took."""
    wall, start = time.perf_counter(), processor()
    model = fit()
    return model, {"processor_s": processor() - start, "wall_s": time.perf_counter() - wall}


def published(folder: Path, name: str, n: int | None = None, plain: bool = True, **options) -> dict:
    """Errors, choices and seconds of a fit with defaults, and those of the recipe alone (``plain``) before it."""
    train, test = read(folder / f"{name}_train.xyz", ":")[:n], read(folder / f"{name}_test.xyz", ":")
    result: dict = {"n_train": len(train), "n_test": len(test)}
    if plain:
        model, seconds = timed(lambda: soapkrr.fit(train, search=False))
        result["recipe alone"] = {**seconds, "left_out": model.left_out_errors_, "test": errors(model, test)}
    with TemporaryDirectory() as results:
        keep_results(results)
        model, seconds = timed(lambda: soapkrr.fit(train, **options))
        found = errors(model, test)
        keep_results(None)
    result["fit"] = {**seconds, "left_out": model.left_out_errors_, "test": found, "choices": soapkrr.auto.summary(model).splitlines()}
    if plain:
        result["fit_over_recipe_alone"] = result["fit"]["processor_s"] / result["recipe alone"]["processor_s"]
    return result


def errors(model, test) -> dict:
    """Mean absolute errors of energies per structure and per atom, and of forces."""
    p = model.predict(test)
    e = np.array([energy - atoms.get_potential_energy() for atoms, energy in zip(test, p.energy, strict=True)])
    f = np.concatenate([(f - atoms.get_forces()).ravel() for f, atoms in zip(p.forces, test, strict=True)])
    per_atom = e / [len(atoms) for atoms in test]
    return {
        "energy_mae_mev": 1e3 * float(np.abs(e).mean()),
        "energy_mae_mev_per_atom": 1e3 * float(np.abs(per_atom).mean()),
        "forces_mae_mev_per_angstrom": 1e3 * float(np.abs(f).mean()),
    }


#: Row → what it does, given the folder of the published sets.
ROWS: dict[str, Callable[[Path], dict]] = {
    "ethanol-50": lambda folder: published(folder, "ethanol", 50),
    "ethanol-50-prior-mean": lambda folder: published(folder, "ethanol", 50, baseline="auto"),
    "tio2": lambda folder: published(folder, "tio2"),
    "si": lambda folder: published(folder, "si"),
    "li": lambda folder: published(folder, "li"),
    **{name: lambda folder, part=part: part() for name, part in species_sharing.PARTS.items() if name in GOALS},
    "ethanol-1000": lambda folder: published(folder, "ethanol", 1000, plain=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--again", action="store_true", help="run rows that are in the output, too")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "auto.json")
    args = parser.parse_args()
    if unknown := sorted(set(args.rows) - set(ROWS)):
        parser.error(f"no rows {unknown}; there are {list(ROWS)}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for row in args.rows or ROWS:
        results = json.loads(args.output.read_text()) if args.output.exists() else {}
        if row in results and not args.again:
            continue
        found = {"goal": GOALS[row], "cores": os.cpu_count(), **ROWS[row](args.folder)}
        args.output.write_text(json.dumps({**results, row: found}, indent=1, ensure_ascii=False) + "\n")
        print(row, found.get("fit", {}).get("test", ""), flush=True)


if __name__ == "__main__":
    main()
