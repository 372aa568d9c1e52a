"""Leave-out in closed form beside the fits it belongs to: seconds and peak of memory, each in a fresh process with compiled loops.

    python benchmarks/leave_out.py SILICON.xyz ETHANOL.xyz [--threads 2] [--repeats 3] [--output results/leave_out.json]

Of silicon, one structure at a time left out of a sparse fit of 1,000 points: by another pass over the rows ("again"), and within a fit
that keeps its rows on a disk ("kept"), as one that ends with a leave-out does. Of ethanol, the exact process that `soapkrr.fit` chooses for
the first 50 structures. Processes alternate, so that a busy machine counts against all of them; seconds of the processor, which all
threads take together, wander less than those of the clock.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from run import HERE, NOISE, SETTINGS, child, machine

SPARSE = """
import json, resource, sys, time
from ase.io import read
from soapkrr import SOAP, DotProduct, SparseGP
from soapkrr.labels import read_labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.fit import Problem
from soapkrr.regression.grouping import groups_by
from soapkrr.regression.leave_out import leave_out
from soapkrr.threads import serial_blas
path, settings, noise, n_sparse, threads, how = json.loads(sys.argv[1])
frames = read(path, ":")
model = SparseGP(SOAP(species=["Si"], **settings), DotProduct(zeta=4), n_sparse=n_sparse, noise=noise, threads=threads)
start, busy = time.perf_counter(), time.process_time()
if how == "kept":
    data, resources = TrainingData.of(frames, read_labels(frames, None, model._noise()), None), model._resources(None, False, None)
    with serial_blas():
        fit = model._scheme().fit(Problem(tuple(model._terms()), data, noise, None, keep=True), resources)
        model._suspects(data, fit, False, None)
        fitted = time.perf_counter() - start
        found = leave_out(fit, data, groups_by("structure", frames, fit.process.descriptors), resources)
else:
    model.fit(frames)
    fitted = time.perf_counter() - start
    found = model.leave_out(frames) if how == "again" else None
seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
memory, processor = usage.ru_maxrss / 1024, time.process_time() - busy
labels, rmse = (len(found), {kind: found.rmse(kind) for kind in ("energy", "forces", "stress")}) if found else (0, {})
print(json.dumps({"fit": fitted, "all": seconds, "processor": processor, "memory_mb": memory, "labels": labels, "rmse": rmse}))
"""

EXACT = """
import json, sys, time
from ase.io import read
import soapkrr
path, n, threads = json.loads(sys.argv[1])
frames = read(path, f":{n}")
start = time.perf_counter()
model = soapkrr.fit(frames, threads=threads)
fitted = time.perf_counter() - start
seconds = []
for _ in range(3):
    start = time.perf_counter()
    found = model.leave_out(frames)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"process": type(model.process_).__name__, "fit": fitted, "leave_out": seconds, "labels": len(found),
                  "observations": model.n_observations_, "rmse": {kind: found.rmse(kind) for kind in ("energy", "forces")}}))
"""


def sparse(path: Path, threads: int | None, repeats: int, n_sparse: int = 1000) -> dict:
    """Seconds and memory of the fit alone, and with the leave-out after it, both ways."""
    runs: dict[str, list] = {"alone": [], "again": [], "kept": []}
    for how in runs:
        child(SPARSE, json.dumps([str(path), SETTINGS, NOISE, 20, threads, how]))
    for _ in range(repeats):
        for how, results in runs.items():
            results.append(child(SPARSE, json.dumps([str(path), SETTINGS, NOISE, n_sparse, threads, how])))
    seconds, busy = ({how: np.array([run[name] for run in results]) for how, results in runs.items()} for name in ("all", "processor"))
    memory = {how: max(run["memory_mb"] for run in results) for how, results in runs.items()}
    return {
        "data": path.name,
        "n_sparse": n_sparse,
        "seconds": {how: values.tolist() for how, values in seconds.items()},
        "memory_mb": memory,
        "processor_seconds": {how: values.tolist() for how, values in busy.items()},
        "processor_of_the_fit": {how: float(np.median(busy[how] / busy["alone"]) - 1) for how in ("again", "kept")},
        "of_the_fit": {how: float(np.median(seconds[how] / seconds["alone"]) - 1) for how in ("again", "kept")},
        "memory_of_the_fit": {how: memory[how] / memory["alone"] for how in ("again", "kept")},
        "labels": runs["kept"][0]["labels"],
        "rmse": {how: runs[how][0]["rmse"] for how in ("again", "kept")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("silicon", type=Path)
    parser.add_argument("ethanol", type=Path)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "leave_out.json")
    options = parser.parse_args()
    exact = child(EXACT, json.dumps([str(options.ethanol), 50, options.threads]))
    results = {
        "machine": {**machine(), "threads_used": options.threads},
        "sparse": sparse(options.silicon, options.threads, options.repeats),
        "exact": {"data": options.ethanol.name, **exact},
    }
    text = json.dumps(results, indent=1)
    print(text)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
