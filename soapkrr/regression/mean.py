"""Energies, forces and strain derivatives of a sum of parts, block of atoms by block; never a Jacobian.

A part has a ``descriptor`` and ``evaluate(s, x, spread)``: for descriptors x (n, d) of atoms of species s it gives energies (n,),
∂E/∂x (n, d) and, where ``spread``, features φ (n, rank) for the variance (else None).
"""

from __future__ import annotations

from collections.abc import Callable

from soapkrr import backends
from soapkrr.parallel import block_map
from soapkrr.structures import Batch, forces_and_strain


def evaluate(parts, batch: Batch, first: int, threads: int | None, spread: Callable | None = None):
    """Per-atom energies (n_atoms,), forces (n_atoms, 3) and ∂E/∂ε (n_structures, 6) of a batch.

    ``spread(start, stop, X, phi)``, if given, is called with the descriptors and features of each part for each block of atoms, on the
    thread that made them; what it returns is given to ``spread.collect(start, stop, result)`` in order.
    """
    xp = parts[0].xp
    step = block_size(parts, batch.n_atoms, backends.loops(xp).EVALUATED)
    lists = {r_cut: batch.pairs(r_cut, first, xp) for r_cut in {p.descriptor.r_cut for p in parts}}
    pairs = [lists[p.descriptor.r_cut] for p in parts]
    arrays = [part.descriptor.arrays(batch, p, first) for part, p in zip(parts, pairs, strict=True)]
    gradients = [xp.empty((len(p.j), 3)) for p in pairs]
    energies = xp.zeros(batch.n_atoms)

    def block(start, stop):
        energies[start:stop] = 0.0  # a block may be repeated
        done = [_block(part, a, start, stop, energies, g, spread is not None) for part, a, g in zip(parts, arrays, gradients, strict=True)]
        return spread and spread(start, stop, *zip(*done, strict=True))

    for start, stop, result in block_map(block, batch.n_atoms, step, threads):
        if spread is not None:
            spread.collect(start, stop, result)
    sums = [forces_and_strain(batch, p, g) for p, g in zip(pairs, gradients, strict=True)]
    return energies, sum(f for f, _ in sums), sum(s for _, s in sums)


def block_size(parts, n_atoms: int, most: int) -> int:
    """Atoms per block: at most ``most``, or, as species have products of their own, as many of each within 8 MB of descriptors.

    Blocks are nearly equal and even in number, so that two threads end together, and do not depend on the number of threads.
    """
    n_features, n_species = max(p.descriptor.n_features for p in parts), max(len(p.descriptor.species) for p in parts)
    blocks = -(-n_atoms // max(most, min(most * n_species, 2**20 // n_features)))
    return -(-n_atoms // (blocks + (blocks % 2 if blocks > 1 else 0)))


def _block(part, arrays, start: int, stop: int, energies, gradient, spread: bool):
    """Add energies and fill pair gradients of atoms ``start:stop`` of one part; their X and φ."""
    X, state = part.descriptor.compute(start, stop, arrays)
    xp, kinds = part.xp, arrays.kinds[start:stop]
    several = len(part.descriptor.species) > 1
    G = xp.zeros_like(X) if several else None
    phi = xp.zeros((len(X), part.rank)) if spread else None
    for s in range(len(part.descriptor.species)):
        here = xp.flatnonzero(kinds == s) if several else slice(None)
        if several and not len(here):
            continue
        e, g, features = part.evaluate(s, X[here], spread)
        energies[start:stop][here] += e
        if several:
            G[here] = g
        else:
            G = g
        if spread:
            phi[here] = features
    part.descriptor.pullback(start, stop, arrays, X, state, G, gradient)
    return X, phi
