"""Energies, forces and strain derivatives of a sum of parts, block of atoms by block; never a Jacobian.

A part has a ``descriptor`` and ``evaluate(s, x)``: for descriptors x (n, d) of atoms of species s it gives energies (n,) and ∂E/∂x (n, d).
Where kernel values are collected for variances, it also has ``evaluate_with_kernel(s, x)``, which gives them (n, M_s) too.
Samples of a potential are parts of one class that share all but their weights; `evaluate_samples` takes them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce
from operator import add

import numpy as np

from soapkrr import backends
from soapkrr.execution.blocks import block_map
from soapkrr.structures import Batch, Mean


class Collector(ABC):
    """Takes the descriptors and kernel values of each part, block by block, while `evaluate` runs."""

    @abstractmethod
    def block(self, start: int, stop: int, X: list, kernel_rows: list):
        """What is kept of atoms ``start:stop``; called on the thread that made X and [(species, atoms, kernel values)] of each part."""

    @abstractmethod
    def collect(self, start: int, stop: int, kept) -> None:
        """Called with what `block` returned, in the order of the atoms."""


def evaluate(parts, batch: Batch, threads: int | None, collector: Collector | None = None) -> Mean:
    """Per-atom energies, forces and ∂E/∂ε of a batch, in arrays of the parts' library."""
    xp = parts[0].xp
    step = block_size(parts, batch.n_atoms, backends.loops(xp))
    environments = [part.descriptor.environments(batch, xp) for part in parts]
    gradients = [env.gradient() for env in environments]
    energies = xp.zeros(batch.n_atoms)

    def block(start, stop):
        energies[start:stop] = 0.0  # a block may be repeated
        done = [
            _block(part, env, slice(start, stop), energies, g, collector is not None)
            for part, env, g in zip(parts, environments, gradients, strict=True)
        ]
        return None if collector is None else collector.block(start, stop, *map(list, zip(*done, strict=True)))

    for start, stop, kept in block_map(block, batch.n_atoms, step, threads):
        if collector is not None:
            collector.collect(start, stop, kept)
    forces, strain = zip(*(env.forces_and_strain(g) for env, g in zip(environments, gradients, strict=True)), strict=True)
    return Mean(energies, reduce(add, forces), reduce(add, strain))


def block_size(parts, n_atoms: int, loops) -> int:
    """Atoms per block for the ``loops`` of a backend: at most `EVALUATED`, or, as species have products of their own, as many of each
    within 8 MB of descriptors.

    Blocks are nearly equal and even in number from `SHARED` atoms on, so that two threads end together, and do not depend on the number
    of threads.
    """
    n_features, n_species = max(p.descriptor.n_features for p in parts), max(p.descriptor.n_kinds for p in parts)
    most = max(loops.EVALUATED, min(loops.EVALUATED * n_species, 2**20 // n_features))
    blocks = max(-(-n_atoms // most), 2 if n_atoms >= loops.SHARED else 1)
    return -(-n_atoms // (blocks + (blocks % 2 if blocks > 1 else 0)))


def _block(part, env, atoms: slice, energies: np.ndarray, gradient: np.ndarray, collected: bool) -> tuple:
    """Add energies and fill pair gradients of some atoms for one part; their X and kernel values."""
    start, stop = atoms.start, atoms.stop
    X, state = env.block(start, stop)
    kinds, n_species = env.kinds[atoms], part.descriptor.n_kinds
    kept = [] if collected else None
    if n_species == 1:
        G = _species(part, 0, X, energies[atoms], kept, slice(None))
    else:
        G = part.xp.zeros_like(X)
        for s in range(n_species):
            here = part.xp.flatnonzero(kinds == s)
            if len(here):
                G[here] = _species(part, s, X[here], energies[atoms], kept, here)
    env.pull_back(start, stop, (X, state), G, gradient)
    return X, kept


def _species(part, s: int, x: np.ndarray, energies: np.ndarray, kept: list | None, here) -> np.ndarray:
    """∂E/∂x of the atoms ``here`` of species s; adds their energies, and their kernel values to what is ``kept``."""
    if kept is None:
        e, g = part.evaluate(s, x)
    else:
        e, g, values = part.evaluate_with_kernel(s, x)
        kept.append((s, part.xp.arange(len(x)) if isinstance(here, slice) else here, values))
    energies[here] += e
    return g


def evaluate_samples(samples, batch: Batch, threads: int | None) -> list[Mean]:
    """Per-atom energies, forces and ∂E/∂ε of n samples of a potential, each a list of parts, in one pass over the descriptors.

    The class of the parts has ``evaluate_samples(parts, s, x)``: energies (n_samples, n), and an iterator over the gradients (n, d).
    """
    by_term = list(zip(*samples, strict=True))
    xp, n = samples[0][0].xp, len(samples)
    step = block_size(samples[0], batch.n_atoms, backends.loops(xp))
    environments = [parts[0].descriptor.environments(batch, xp) for parts in by_term]
    gradients = [[env.gradient() for _ in range(n)] for env in environments]
    energies = xp.zeros((n, batch.n_atoms))

    def block(start, stop):
        energies[:, start:stop] = 0.0  # a block may be repeated
        for parts, env, gradient in zip(by_term, environments, gradients, strict=True):
            _samples_block(parts, env, slice(start, stop), energies[:, start:stop], gradient)

    for _ in block_map(block, batch.n_atoms, step, threads):
        pass
    means = []
    for k in range(n):
        sums = (env.forces_and_strain(of_term[k]) for env, of_term in zip(environments, gradients, strict=True))
        forces, strain = zip(*sums, strict=True)
        means.append(Mean(energies[k], reduce(add, forces), reduce(add, strain)))
    return means


def _samples_block(parts, env, atoms: slice, energies: np.ndarray, gradients: list) -> None:
    """Add energies (n_samples, n) and fill the pair gradients of some atoms, of each sample, for one term."""
    start, stop = atoms.start, atoms.stop
    X, state = env.block(start, stop)
    xp, kinds, evaluated = parts[0].xp, env.kinds[atoms], []
    for s in range(parts[0].descriptor.n_kinds):
        here = xp.flatnonzero(kinds == s)
        if len(here):
            e, gradient = type(parts[0]).evaluate_samples(parts, s, X[here])
            energies[:, here] += e
            evaluated.append((here, gradient))
    for pairs in gradients:
        if len(evaluated) == 1:  # all atoms, of one species
            G = next(evaluated[0][1])
        else:
            G = xp.zeros_like(X)
            for here, gradient in evaluated:
                G[here] = next(gradient)
        env.pull_back(start, stop, (X, state), G, pairs)
