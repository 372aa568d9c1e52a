"""The fit against the processor's own rate of matrix products, and beside other programs that keep every core busy.

    python benchmarks/fit.py --train TRAIN.xyz [--n-sparse 4000] [--output results.json]

Operations are those of matrix products and factorisations alone, over the time of the whole fit: what loops take
counts against it. The rate of products is measured before and after, one thread of BLAS on every core, as the fit runs:
the median fit is compared with the highest of those rates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase.io import read
from run import FIT, HERE, NOISE, SETTINGS, child, machine
from sklearn.base import clone

from soapkrr import SOAP, DotProduct, SparseGP
from soapkrr.threads import default_threads, serial_blas, thread_map

BUSY = "import numpy as np\na = np.random.random((400, 400))\nwhile True:\n    a @ a\n"


def product_rate(n: int = 1500, repeats: int = 4) -> float:
    """Operations a second of matrix products on every core at once, one thread each."""
    a = np.random.default_rng(0).random((n, n))
    best = np.inf
    with serial_blas():
        for _ in range(8):
            start = time.perf_counter()
            for _ in thread_map(lambda _: a @ a, range(repeats * default_threads())):
                pass
            best = min(best, time.perf_counter() - start)
    return 2 * n**3 * repeats * default_threads() / best


def fit_seconds(train: Path, n_sparse: int) -> float:
    """Of a fit in a fresh process whose loops are compiled."""
    return child(FIT, json.dumps([str(train), 1, n_sparse, SETTINGS, NOISE, ""]))[0]


def under_load(train: Path, n_sparse: int = 1000) -> dict:
    """Seconds of the fit alone, and while as many other processes as there are cores multiply matrices."""
    fit_seconds(train, 50)
    idle = fit_seconds(train, n_sparse)
    others = [subprocess.Popen([sys.executable, "-c", BUSY], env={"OPENBLAS_NUM_THREADS": "1"}) for _ in range(default_threads())]
    try:
        time.sleep(1.0)
        busy = fit_seconds(train, n_sparse)
    finally:
        for process in others:
            process.kill()
            process.wait()
    return {"n_sparse": n_sparse, "idle_seconds": idle, "busy_seconds": busy, "ratio": busy / idle}


def operations(plan, n: int, rank: int, rows: dict) -> float:
    """Of the linear algebra that was done: products, QR and merging as planned, the whitening and the regression of the rank found.

    Symmetric eigenvectors count 14/3 n³ (Golub and Van Loan, section 8.3), and are needed only where the rank is below n.
    """
    planned = {step.name: step.flops for step in plan.steps}
    total = planned["products for design rows"] + planned["QR of rows"] + planned["merging of triangles"] / len(rows)
    many = [count for count in rows.values() if count > n]
    few = [count for count in rows.values() if count <= n]
    total += n**3 if rank == n else n**3 / 3 + 14 / 3 * n**3 + len(many) * (2 * n**2 * rank + 4 / 3 * rank**3)
    return total + len(many) * 2 / 3 * rank**3 + sum(2 * count * (n + rank) * rank for count in few)


def algebra(train: Path, n_sparse: int, repeats: int = 3) -> dict:
    """Rate of a whole fit in units of the rate of products."""
    model = SparseGP(SOAP(species=["Si"], **SETTINGS), DotProduct(zeta=4), n_sparse=n_sparse, noise=NOISE)
    frames = read(train, ":")
    plan = model.plan(frames)
    clone(model).set_params(n_sparse=50).fit(frames[:5])
    rates, times = [product_rate()], []
    for _ in range(repeats):
        start = time.perf_counter()
        model.fit(frames)
        times.append(time.perf_counter() - start)
        rates.append(product_rate())
    seconds = float(np.median(times))
    flops = operations(plan, n_sparse, model.rank_, model.n_observations_)
    return {
        "n_sparse": n_sparse,
        "rank": model.rank_,
        "seconds": times,
        "gflop": flops / 1e9,
        "gflop_per_s": flops / seconds / 1e9,
        "products_gflop_per_s": [rate / 1e9 for rate in rates],
        "of_products": flops / seconds / max(rates),
        "planned_seconds": plan.cpu_seconds,
        "planned_gflop": {step.name: step.flops / 1e9 for step in plan.steps},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=HERE.parent / "data/silicon/train.xyz", help="labelled silicon structures")
    parser.add_argument("--n-sparse", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "fit.json")
    options = parser.parse_args()
    results = {"machine": machine(), "data": options.train.name, "load": under_load(options.train)}
    results["algebra"] = algebra(options.train, options.n_sparse)
    text = json.dumps(results, indent=1)
    print(text)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
