"""Targets of a fit: labels minus the prior mean, and the noise of each, in the order of `observed.Layout`."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.baselines import baseline_energies
from soapkrr.labels import Labels

#: Kinds of observation, in the order in which a structure lists them.
KINDS = ("energy", "forces", "stress")


def observation_targets(frames: list[Atoms], labels: list[Labels], references, noise) -> tuple[np.ndarray, np.ndarray]:
    """Targets y and noise levels σ of energy, forces (if any), stress (if any) of every structure; σ is NaN where a label is missing.

    Energies keep their whole value, E − Σ e(z), with noise σ_E √N.
    """
    y, sigma = [], []
    for atoms, label in zip(frames, labels, strict=True):
        known = np.isfinite(label.energy)
        y.append([label.energy - baseline_energies(references, atoms.numbers).sum() if known else 0.0])
        sigma.append([noise["energy"] * np.sqrt(len(atoms)) if known else np.nan])
        for kind, values in (("forces", label.forces), ("stress", label.stress)):
            if values is not None:
                y.append(values.ravel())
                sigma.append(np.full(values.size, noise[kind]))
    return np.concatenate(y), np.concatenate(sigma)


def observation_kinds(frames: list[Atoms], labels: list[Labels]) -> np.ndarray:
    """Index into `KINDS` of every observation, in the order of `observation_targets`."""
    kinds = []
    for atoms, label in zip(frames, labels, strict=True):
        kinds += [0] + ([1] * 3 * len(atoms) if label.forces is not None else []) + ([2] * 6 if label.stress is not None else [])
    return np.array(kinds)


def subset(labels: list[Labels], n: int, seed: int = 0) -> list[int]:
    """Indices of structures drawn at random, in increasing order, with at most ``n`` observations together (at least one structure)."""
    sizes = [1 + sum(v.size for v in (label.forces, label.stress) if v is not None) for label in labels]
    order = np.random.default_rng(seed).permutation(len(labels))
    total = np.cumsum([sizes[i] for i in order])
    return sorted(order[: max(1, np.searchsorted(total, n, side="right"))].tolist())
