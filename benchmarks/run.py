"""Time the descriptor, the prediction and the fit, each as a ratio to the bare matrix products of the same shapes and to quippy.

    python benchmarks/run.py --train TRAIN.xyz --test TEST.xyz [--peer] [--output results.json]

Every figure is the median of several repetitions in one run. ``--peer`` adds QUIP's calculator and gap_fit with the same
hyperparameters and data (needs ``pip install quippy-ase``; its fit takes minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peer
from ase.build import bulk
from ase.io import read

import soapkrr
from soapkrr import SOAP, SparseGP
from soapkrr.structures import Batch
from soapkrr.threads import default_threads, serial_blas, thread_map

HERE = Path(__file__).resolve().parent
SETTINGS = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.5}
NOISE = {"energy": 0.002, "forces": 0.05, "stress": 0.002}

FIT = """
import json, resource, sys, time
from ase.io import read
from soapkrr import SOAP, DotProduct, SparseGP
path, copies, n_sparse, settings, noise, out = json.loads(sys.argv[1])
frames = read(path, ":") * copies
start = time.perf_counter()
model = SparseGP(SOAP(species=["Si"], **settings), DotProduct(zeta=4), n_sparse=n_sparse, noise=noise).fit(frames)
seconds = time.perf_counter() - start
if out: model.save(out)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([seconds, usage.ru_maxrss / 1024, usage.ru_utime]))
"""

FIRST_PREDICTION = """
import json, sys, time
start = time.perf_counter()
import soapkrr
imported = time.perf_counter() - start
from ase.build import bulk
start = time.perf_counter()
soapkrr.load(sys.argv[1]).predict(bulk("Si", cubic=True))
print(json.dumps([imported, time.perf_counter() - start]))
"""


def median_seconds(function, repeats: int = 7) -> float:
    """Median wall time of a call, after one warm-up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def alternating(repeats: int, **functions) -> dict[str, np.ndarray]:
    """Seconds (repeats,) of each function, called in turn after one warm-up."""
    times = {name: [] for name in functions}
    for k in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if k:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def child(code: str, *arguments: str):
    """Run Python code in a fresh process; the JSON on its last line."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def crystal(cells: int):
    """Rattled diamond silicon of cells³ · 8 atoms."""
    atoms = bulk("Si", cubic=True) * (cells, cells, cells)
    atoms.rattle(0.05, seed=1)
    return atoms


def bare_products(model: SparseGP, numbers: np.ndarray, threads: int) -> Callable:
    """The two products of a prediction of such atoms, of each species; as in a prediction, every thread has one thread of BLAS."""
    term, rng, parts = model.process_.terms[0], np.random.default_rng(0), []
    for n, points in zip(np.bincount(term.descriptor.kinds(numbers), minlength=len(term.points)), term.points, strict=True):
        x, w = rng.random((n, points.shape[1])), rng.random((n, len(points)))
        parts += zip(np.array_split(x, threads), [points] * threads, np.array_split(w, threads), strict=True)

    def products():
        for _ in thread_map(lambda part: (part[0] @ part[1].T, part[2] @ part[1]), parts, threads):
            pass

    return products


def measure_descriptor() -> dict:
    """SOAP values, and values + full Jacobian, on one thread; µs per atom."""
    atoms, descriptor = crystal(4), SOAP(species=["Si"], **SETTINGS)
    batch = Batch.from_atoms([atoms])
    batch.pairs(descriptor.r_cut)  # found once and kept
    n = len(atoms)

    def jacobian():
        env = descriptor.environments(batch)
        for start in range(0, n, 16):
            env.displaced(start, min(start + 16, n))

    with serial_blas():
        values = median_seconds(lambda: descriptor.environments(batch).X)
        full = median_seconds(jacobian, 3)
    return {"values_us_per_atom": 1e6 * values / n, "values_and_jacobian_us_per_atom": 1e6 * full / n}


def measure_prediction(model: SparseGP) -> dict:
    """Energy + forces + stress, and with standard deviations; µs per atom."""
    small, large = crystal(5), crystal(10)
    n = len(small)
    times = alternating(25, products=bare_products(model, small.numbers, default_threads()), efs=lambda: model.predict(small))
    out = {f"{name}_us_per_atom": 1e6 / n * float(np.median(values)) for name, values in times.items()} | {
        "efs_energy_std_us_per_atom": 1e6 / n * median_seconds(lambda: model.predict(small, uncertainty="energy")),
        "efs_forces_std_us_per_atom": 1e6 / n * median_seconds(lambda: model.predict(small, uncertainty=("energy", "forces")), 3),
        "efs_8000_us_per_atom": 1e6 / len(large) * median_seconds(lambda: model.predict(large)),
    }
    out["efs_to_products"] = out["efs_us_per_atom"] / out["products_us_per_atom"]
    out["energy_std_to_efs"] = out["efs_energy_std_us_per_atom"] / out["efs_us_per_atom"]
    out["us_per_atom_8000_to_1000"] = out["efs_8000_us_per_atom"] / out["efs_us_per_atom"]
    return out


def measure_fit(train: Path, n_sparse: int, model_path: Path) -> dict:
    """Fit in a fresh process: seconds and peak resident memory; once more with the list repeated four times."""
    arguments = [str(train), 1, n_sparse, SETTINGS, NOISE, str(model_path)]
    child(FIT, json.dumps(arguments))
    seconds, memory, cpu = child(FIT, json.dumps(arguments))
    _, memory_four, _ = child(FIT, json.dumps([str(train), 4, n_sparse, SETTINGS, NOISE, ""]))
    frames = read(train, ":")
    atoms = sum(map(len, frames))
    neighbours = Batch.from_atoms(frames[:20])
    per_atom = len(neighbours.pairs(SETTINGS["r_cut"]).j) / neighbours.n_atoms
    n_features = SOAP(species=["Si"], **SETTINGS).n_features
    rows = int(3 * per_atom * 128)
    rng = np.random.default_rng(0)
    J, Q = rng.random((rows, n_features)), rng.random((n_sparse, n_features))
    bare = atoms / 128 * median_seconds(lambda: J @ Q.T)
    return {
        "atoms": atoms,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "jacobian_products_seconds": bare,
        "to_products": seconds / bare,
        "peak_memory_mb": memory,
        "peak_memory_mb_repeated_4": memory_four,
        "memory_growth": memory_four / memory - 1,
    }


def measure_start(model_path: Path) -> dict:
    """Import and first prediction in a fresh process with warm caches; medians, seconds."""
    runs = np.array([child(FIRST_PREDICTION, str(model_path)) for _ in range(4)][1:])
    return {"import_seconds": float(np.median(runs[:, 0])), "first_prediction_seconds": float(np.median(runs[:, 1]))}


def machine() -> dict:
    """Where the figures were taken."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    versions = {name: __import__(name).__version__ for name in ("numpy", "scipy", "numba")}
    return {"cpu": model, "threads": default_threads(), "python": platform.python_version(), "soapkrr": soapkrr.__version__, **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=HERE.parent / "data/silicon/train.xyz")
    parser.add_argument("--test", type=Path, default=HERE.parent / "data/silicon/test.xyz")
    parser.add_argument("--n-sparse", type=int, default=1000)
    parser.add_argument("--l-max", type=int, default=SETTINGS["l_max"], help="of the descriptor (default %(default)s)")
    parser.add_argument("--peer", action="store_true", help="also time quippy's calculator and gap_fit")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "run.json")
    options = parser.parse_args()
    SETTINGS["l_max"] = options.l_max

    with tempfile.TemporaryDirectory() as folder:
        model_path = Path(folder, "model.soapkrr")
        results = {"machine": machine(), "data": options.train.name}
        results["descriptor"] = measure_descriptor()
        results["fit"] = measure_fit(options.train, options.n_sparse, model_path)
        model = soapkrr.load(model_path)
        test = read(options.test, ":")
        results["test_errors"] = soapkrr.metrics.error_table(test, model.predict(test, uncertainty=True))
        results["prediction"] = measure_prediction(model)
        results["start"] = measure_start(model_path)
        if options.peer:
            results["peer"] = peer.measure(options.train, test, crystal(5), options.n_sparse, SETTINGS, NOISE, Path(folder))
            results["peer"]["fit_ratio"] = results["peer"]["fit_seconds"] / results["fit"]["seconds"]
            results["peer"]["fit_cpu_ratio"] = results["peer"]["fit_cpu_seconds"] / results["fit"]["cpu_seconds"]
            results["peer"]["memory_ratio"] = results["peer"]["fit_peak_memory_mb"] / results["fit"]["peak_memory_mb"]
            results["peer"]["prediction_ratio"] = results["peer"]["efs_us_per_atom"] / results["prediction"]["efs_us_per_atom"]
    text = json.dumps(results, indent=1)
    print(text)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
