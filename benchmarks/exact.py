"""The exact Gaussian process by conjugate gradients: beside Cholesky on a part of the data, then on all of them beside a sparse one.

    python benchmarks/exact.py TRAIN.xyz TEST.xyz [--part 12] [--threads 2] [--output results/exact.json]

One product with the covariance stands beside the bare matrix products of the same shapes, 8·n²·d operations for n environments with d
features, timed in the same run on as many threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from ase.io import read
from run import HERE, NOISE, SETTINGS, machine, median_seconds

from soapkrr import SOAP, DotProduct, GaussianProcess, SparseGP
from soapkrr.backends import cpu
from soapkrr.metrics import error_table
from soapkrr.regression.exact.conjugate_gradients import ObservedSystem
from soapkrr.regression.exact.operator import CovarianceOperator
from soapkrr.threads import serial_blas, thread_map


def descriptor() -> SOAP:
    """The silicon descriptor of `run.py`."""
    return SOAP(species=["Si"], **SETTINGS)


def timed_fit(frames, threads: int | None, **options) -> tuple[GaussianProcess, float]:
    """A fitted process and the seconds it took."""
    start = time.perf_counter()
    model = GaussianProcess(descriptor(), DotProduct(zeta=4), noise=NOISE, threads=threads, **options).fit(frames)
    return model, time.perf_counter() - start


def beside_cholesky(frames, test, threads: int | None) -> dict:
    """Seconds of both solvers, and the largest differences of their predictions in units of the noise."""
    direct, direct_seconds = timed_fit(frames, threads, solver="cholesky")
    iterative, seconds = timed_fit(frames, threads, solver="cg")
    p, q = direct.predict(test), iterative.predict(test)
    sizes = np.array([len(atoms) for atoms in test])
    return {
        "structures": len(frames),
        "observations": sum(direct.n_observations_.values()),
        "cholesky_seconds": direct_seconds,
        "cg_seconds": seconds,
        "iterations": iterative.iterations_,
        "residual": iterative.residual_,
        "energy_difference_of_noise": float((np.abs(p.energy - q.energy) / np.sqrt(sizes)).max() / NOISE["energy"]),
        "forces_difference_of_noise": float(np.abs(np.concatenate(p.forces) - np.concatenate(q.forces)).max() / NOISE["forces"]),
        "stress_difference_of_noise": float(np.nanmax(np.abs(p.stress - q.stress)) / NOISE["stress"]),
    }


def measure_product(model: GaussianProcess, threads: int | None) -> dict:
    """One product with the covariance of the fitted model's observations, and the bare matrix products of its shapes."""
    fitted = model.process_
    operator = CovarianceOperator(model._terms(), fitted.structures, threads)
    system = ObservedSystem(operator, np.nan_to_num(1 / fitted.sigma), None)
    x, n, step = np.ones(operator.size), operator.batch.n_atoms, cpu.EVALUATED
    X = np.random.default_rng(0).random((n, model.descriptor.n_features))
    tiles = [X[a : a + cpu.POINTS] for a in range(0, n, cpu.POINTS)]

    def block(start):
        for tile in tiles:
            for _ in range(2):
                X[start : start + step] @ tile.T @ tile

    with serial_blas():
        seconds = median_seconds(lambda: system.apply(x), 3)
        bare = median_seconds(lambda: list(thread_map(block, range(0, n, step), threads)), 3)
    gflop = 8e-9 * n**2 * X.shape[1]
    return {
        "environments": n,
        "gflop": gflop,
        "seconds_per_product": seconds,
        "bare_products_seconds": bare,
        "to_products": seconds / bare,
        "gflop_per_second": gflop / seconds,
    }


def on_everything(frames, test, threads: int | None, n_sparse: int) -> dict:
    """The exact process on all data, and the sparse one."""
    model, seconds = timed_fit(frames, threads, solver="cg")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    sparse = SparseGP(descriptor(), DotProduct(zeta=4), n_sparse=n_sparse, noise=NOISE, threads=threads).fit(frames)
    sparse_seconds = time.perf_counter() - start
    return {
        "structures": len(frames),
        "observations": model.n_observations_,
        "seconds": seconds,
        "iterations": model.iterations_,
        "residual": model.residual_,
        "n_preconditioner": sum(len(x) for term in model.process_.sparse for x in term.points),
        "peak_memory_mb": memory,
        "test_errors": error_table(test, model.predict(test)),
        "product": measure_product(model, threads),
        "sparse": {
            "n_sparse": n_sparse,
            "seconds": sparse_seconds,
            "test_errors": error_table(test, sparse.predict(test)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--part", type=int, default=12, help="every n-th structure is in the part that both solvers fit")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--n-sparse", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "exact.json")
    options = parser.parse_args()
    frames, test = read(options.train, ":"), read(options.test, ":")
    # All data first: the peak of memory is that of the process.
    everything = on_everything(frames, test, options.threads, options.n_sparse)
    part = beside_cholesky(frames[:: options.part], test, options.threads)
    results = {"machine": {**machine(), "threads_used": options.threads}, "data": options.train.name, "all": everything, "part": part}
    text = json.dumps(results, indent=1)
    print(text)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
