"""Symmetry functions: 22 G2 + 20 G4 on 512 silicon atoms, r_cut 5 Å; µs per atom on one thread and on all, beside DScribe's values."""

from __future__ import annotations

import sys
import time

import numpy as np
from ase.build import bulk

from soapkrr import ACSF
from soapkrr.descriptors.acsf import acsf_parameters
from soapkrr.structures import Batch
from soapkrr.threads import default_threads, thread_map

R_CUT, BLOCK = 5.0, 32


def best(run, n_atoms: int, repeats: int = 9) -> tuple[float, float]:
    """Least wall and CPU time of a few runs, µs per atom."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return 1e6 * min(walls) / n_atoms, 1e6 * min(cpus) / n_atoms


def blocks(acsf: ACSF, arrays, gradient: np.ndarray | None, out: np.ndarray, threads: int):
    """Values, and the pull-back of ``gradient`` where there is one, block by block as a potential does it."""
    n = len(arrays.kinds)

    def block(start):
        stop = min(start + BLOCK, n)
        X, state = acsf.compute(start, stop, arrays)
        if gradient is not None:
            acsf.pullback(start, stop, arrays, X, state, gradient[start:stop], out)

    for _ in thread_map(block, range(0, n, BLOCK), threads):
        pass


def main() -> int:
    atoms = bulk("Si", cubic=True).repeat(4)
    atoms.rattle(0.05, seed=0)
    atoms.wrap()
    parameters = acsf_parameters(R_CUT, 22, 20)
    acsf = ACSF(["Si"], R_CUT, **parameters)
    batch = Batch.from_atoms([atoms])
    pairs = batch.pairs(R_CUT)
    arrays, out = acsf.arrays(batch), np.empty((len(pairs.j), 3))
    gradient = np.random.default_rng(0).normal(size=(len(atoms), acsf.n_features))
    write = sys.stdout.write
    for threads in sorted({1, default_threads()}):
        for name, g in (("values", None), ("values + gradients", gradient)):
            wall, cpu = best(lambda g=g, threads=threads: blocks(acsf, arrays, g, out, threads), len(atoms))
            write(f"{name:20s} {threads} threads: {wall:7.1f} µs per atom (CPU time {cpu:.1f})\n")
    try:
        from dscribe.descriptors import ACSF as DScribeACSF
    except ImportError:
        return 0
    theirs = DScribeACSF(r_cut=R_CUT, species=["Si"], periodic=True, **parameters)
    wall, cpu = best(lambda: theirs.create(atoms), len(atoms), repeats=3)
    write(f"{'DScribe, values':20s} 1 thread : {wall:7.1f} µs per atom (CPU time {cpu:.1f})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
