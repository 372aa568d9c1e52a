"""Targets of a fit: labels minus the prior mean, and the noise of each, in the order of `observed.Layout`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from soapkrr.baselines import baseline_energies
from soapkrr.labels import Labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.observed import ObservedStructures
from soapkrr.row_scale import log_scales

#: Kinds of observation, in the order in which a structure lists them.
KINDS = ("energy", "forces", "stress")


def observed_structures(data: TrainingData) -> ObservedStructures:
    """The structures, with the kinds of derivative that each has a label of."""
    return ObservedStructures(data.frames, *([label.has(kind) for label in data.labels] for kind in ("forces", "stress")))


def observation_targets(data: TrainingData, noise: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Targets y and noise levels σ of energy, forces (if any), stress (if any) of every structure; σ is NaN where a label is missing.

    Energies keep their whole value, E − Σ e(z), with noise σ_E √N. Rows with a σ of their own have σ/`Labels.scale`.
    """
    y, sigma = [], []
    for atoms, label in zip(data.frames, data.labels, strict=True):
        reference = baseline_energies(data.references, atoms.numbers).sum()
        for kind, offset, unit in (("energy", reference, np.sqrt(len(atoms))), ("forces", 0.0, 1.0), ("stress", 0.0, 1.0)):
            if kind == "energy" or label.has(kind):
                values = np.ravel(getattr(label, kind)) - offset
                known = np.isfinite(values)
                y.append(np.where(known, values, 0.0))
                sigma.append(np.where(known, noise[kind] * unit / np.ravel(label.scale.get(kind, 1.0)), np.nan))
    return np.concatenate(y), np.concatenate(sigma)


def observation_kinds(data: TrainingData) -> np.ndarray:
    """Index into `KINDS` of every observation, in the order of `observation_targets`."""
    return np.repeat(np.tile(range(3), len(data.labels)), np.ravel([_sizes(label) for label in data.labels]))


def _sizes(label: Labels) -> tuple[int, int, int]:
    """Observations of each kind in the layout of one structure."""
    return (1, label.forces.size if label.has("forces") else 0, 6 if label.has("stress") else 0)


def observation_counts(data: TrainingData) -> dict[str, int]:
    """{kind: number of known components}, of kinds that occur."""
    counts = {kind: sum(int(np.isfinite(getattr(label, kind)).sum()) for label in data.labels if label.has(kind)) for kind in KINDS}
    return {kind: n for kind, n in counts.items() if n}


def log_weights(data: TrainingData) -> float:
    """Σ log(σ_kind/σ) over all rows: what σ of their own, and √N of energies, add to any log likelihood."""
    known = [len(atoms) for atoms, label in zip(data.frames, data.labels, strict=True) if label.has("energy")]
    return sum(log_scales(data.labels).values()) - 0.5 * float(np.log(known).sum())


def subset(labels: list[Labels], n: int, seed: int = 0) -> list[int]:
    """Indices of structures drawn at random, in increasing order, with at most ``n`` observations together (at least one structure)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    total = np.cumsum([sum(_sizes(labels[i])) for i in order])
    return sorted(order[: max(1, np.searchsorted(total, n, side="right"))].tolist())
