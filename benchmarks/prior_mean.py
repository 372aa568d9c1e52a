"""What a prior mean from quantum chemistry gives with few structures: `soapkrr.fit(train, baseline="auto")` beside `soapkrr.fit(train)`.

    pip install "soapkrr[xtb]"
    python benchmarks/prior_mean.py FOLDER [--n 50] [--json prior_mean.json]

FOLDER holds ethanol_train.xyz and ethanol_test.xyz (revised MD17, Christensen and von Lilienfeld 2020, doi 10.1088/2632-2153/abba6f). All
choices are those of the fit, by leave-one-out on the training structures; the test structures are predicted once, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase.io import read

import soapkrr
from soapkrr.baselines import keep_results

HERE = Path(__file__).resolve().parent


def mean_absolute(model, test) -> dict:
    """Errors of whole structures' energies, meV, and of force components, meV/Å."""
    predicted = model.predict(test)
    energies = predicted.energy - [atoms.get_potential_energy() for atoms in test]
    forces = np.concatenate([(f - atoms.get_forces()).ravel() for f, atoms in zip(predicted.forces, test, strict=True)])
    return {"energy_mae_mev": 1e3 * float(np.abs(energies).mean()), "forces_mae_mev_per_angstrom": 1e3 * float(np.abs(forces).mean())}


def left_out(model, train) -> dict:
    """The same of training structures, each left out."""
    found = model.leave_out(train)
    energy, forces = (1e3 * float(np.abs(found.of_kind(kind).error).mean()) for kind in ("energy", "forces"))
    return {"energy_mae_mev": energy, "forces_mae_mev_per_angstrom": forces}


def measure(train, test, baseline) -> dict:
    """Seconds, errors and choices of one fit; no result of a prior mean is there before."""
    with TemporaryDirectory() as folder:
        keep_results(folder)
        wall, processor = time.perf_counter(), time.process_time()
        model = soapkrr.fit(train, baseline=baseline)
        seconds = {"fit_seconds": time.perf_counter() - wall, "fit_processor_seconds": time.process_time() - processor}
        errors = {"left_out": left_out(model, train), "test": mean_absolute(model, test)}
        keep_results(None)
    return {**seconds, **errors, "choices": soapkrr.auto.summary(model).splitlines()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=50, help="training structures")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "prior_mean.json")
    args = parser.parse_args()
    train, test = read(args.folder / "ethanol_train.xyz", ":")[: args.n], read(args.folder / "ethanol_test.xyz", ":")
    versions = {name: metadata.version(name) for name in ("tblite", "numpy")}
    results = {"n_train": len(train), "n_test": len(test), "cores": os.cpu_count(), "versions": versions}
    for name, baseline in (("none", None), ("auto", "auto")):
        results[name] = measure(train, test, baseline)
        print(name, json.dumps(results[name]["test"]), f"{results[name]['fit_seconds']:.0f} s", flush=True)
    args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
