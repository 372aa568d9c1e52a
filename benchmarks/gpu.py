"""Measure fits and predictions on a GPU, as fractions of what the card can do, and beside the same model on the CPU.

    python benchmarks/gpu.py --train TRAIN.xyz [--sizes 20000 100000 1000000] [--exact] [--output results.json]

Needs CuPy and a GPU. Silicon, SOAP r_cut 5 Å, n_max 8, l_max 6, ζ 4, float64. Times are medians after a warm-up, synchronised. The rate of
the card's matrix products and its memory bandwidth are measured in the same run; "of_products" is the time of the bare products over
the time taken, "of_bandwidth" the bytes that must move (descriptors, kernel values, gradients, each written and read once) over what
the measured bandwidth could have moved.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.io import read
from run import NOISE, SETTINGS

import soapkrr
from soapkrr import SOAP, DotProduct, GaussianProcess, SparseGP, backends

HERE = Path(__file__).resolve().parent


def seconds(cupy, function, repeats: int = 5) -> float:
    """Median wall time of a call with the device idle before and after, after one warm-up."""
    function()
    times = []
    for _ in range(repeats):
        cupy.cuda.runtime.deviceSynchronize()
        start = time.perf_counter()
        function()
        cupy.cuda.runtime.deviceSynchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def silicon(n_atoms: int):
    """Rattled diamond silicon of at least so many atoms."""
    cells = int(np.ceil((n_atoms / 8) ** (1 / 3)))
    atoms = bulk("Si", cubic=True) * (cells, cells, cells)
    atoms.rattle(0.05, seed=0)
    return atoms


def card(cupy) -> dict:
    """Name, versions, rate of matrix products (flop/s, float64) and bandwidth (bytes/s)."""
    n = 8192
    a = cupy.random.random((n, n))
    product = seconds(cupy, lambda: a @ a)
    copy = seconds(cupy, lambda: a.copy())
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "device": properties["name"].decode(),
        "memory_gb": properties["totalGlobalMem"] / 1e9,
        "cupy": cupy.__version__,
        "cuda": cupy.cuda.runtime.runtimeGetVersion(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "soapkrr": soapkrr.__version__,
        "products_flop_per_s": 2 * n**3 / product,
        "bandwidth_bytes_per_s": 16 * n * n / copy,
    }


def prediction(cupy, model, atoms, machine: dict) -> dict:
    """Rates of one structure with its roofline: 4·M·d flops of products and 8·(4·d + 4·M) bytes for each atom."""
    n, points = len(atoms), len(model.process_.terms[0].points[0])
    features = model.process_.terms[0].descriptor.n_features
    plain = seconds(cupy, lambda: model.predict(atoms))
    spread = seconds(cupy, lambda: model.predict(atoms, uncertainty="energies"))
    return {
        "atoms": n,
        "efs_s": plain,
        "efs_atom_steps_per_s": n / plain,
        "efs_energies_std_atom_steps_per_s": n / spread,
        "of_products": n * 4 * points * features / machine["products_flop_per_s"] / plain,
        "of_bandwidth": n * 8 * (4 * features + 4 * points) / machine["bandwidth_bytes_per_s"] / plain,
    }


def fitted(frames, n_sparse: int, device: str) -> tuple[SparseGP, float]:
    """A sparse model and the seconds its fit took, compilation apart."""
    model = SparseGP(SOAP(species=["Si"], **SETTINGS), DotProduct(zeta=4), n_sparse=n_sparse, noise=NOISE, device=device)
    if device != "cpu":
        model.fit(frames[:2])
    start = time.perf_counter()
    model.fit(frames)
    return model, time.perf_counter() - start


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default=HERE.parent / "data" / "silicon" / "train.xyz", help="labelled silicon structures")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000, 1_000_000], help="atoms of the structures predicted")
    parser.add_argument("--n-sparse", type=int, nargs="+", default=[1000, 4000], help="sparse points; the first for the predictions")
    parser.add_argument("--exact", action="store_true", help="also the exact process by conjugate gradients on all of the data")
    parser.add_argument("--cpu", action="store_true", help="also the first fit and the smallest prediction on the CPU of this machine")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "gpu.json")
    args = parser.parse_args(arguments)
    cupy = backends.library("cuda")
    machine, frames = card(cupy), read(args.train, ":")
    results = {"machine": machine, "train": Path(args.train).name, "fits": [], "predictions": []}

    def write():
        args.output.write_text(json.dumps(results, indent=1) + "\n")

    models = []
    for n_sparse in args.n_sparse:
        model, taken = fitted(frames, n_sparse, "cuda")
        models.append(model)
        results["fits"].append({"n_sparse": n_sparse, "seconds": taken, "rows": model.n_observations_})
        write()
    for n_atoms in args.sizes:
        results["predictions"].append(prediction(cupy, models[0], silicon(n_atoms), machine))
        write()
    if args.exact:
        start = time.perf_counter()
        exact = GaussianProcess(SOAP(species=["Si"], **SETTINGS), DotProduct(zeta=4), noise=NOISE, device="cuda", solver="cg").fit(frames)
        results["exact"] = {"seconds": time.perf_counter() - start, "rows": exact.n_observations_, "iterations": exact.iterations_}
        write()
    if args.cpu:
        model, taken = fitted(frames, args.n_sparse[0], "cpu")
        atoms = silicon(args.sizes[0])
        start = time.perf_counter()
        p = model.predict(atoms)
        results["cpu"] = {"fit_seconds": taken, "atoms": len(atoms), "efs_s": time.perf_counter() - start}
        q = models[0].predict(atoms)
        results["cpu"]["largest_force_difference"] = float(np.abs(p.forces[0] - q.forces[0]).max())
        write()
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
