"""Targets of a fit: labels minus the prior mean, and the noise of each, in the order of `observed.Layout`."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.baselines import baseline_energies
from soapkrr.labels import Labels


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
