"""Targets of a fit: labels less the prior mean, and the noise of each, in the order of `layout.Layout`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from soapkrr.baselines import baseline_energies
from soapkrr.labels import KINDS, Labels, stacked
from soapkrr.labels.noise import log_scales
from soapkrr.regression.data import TrainingData
from soapkrr.regression.layout import Layout


def layout_of(data: TrainingData) -> Layout:
    """Places of the observations, known or not, of the data."""
    return Layout.of(data.sizes, data.labels)


def observation_targets(data: TrainingData, noise: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Targets y and noise levels σ of energy, forces (if any), stress (if any) of every structure; σ is NaN where a label is missing.

    Energies keep their whole value, E − Σ e(z), with noise σ_E √N. Rows with a σ of their own have σ/`Labels.scale`.
    """
    layout = layout_of(data)
    y, sigma = np.empty(layout.size), np.empty(layout.size)
    references = np.array([baseline_energies(data.references, atoms.numbers).sum() for atoms in data.frames])
    places = {"energy": layout.energy[:, None], "forces": layout.forces, "stress": layout.stress}
    chosen = {"energy": slice(None), "forces": layout.forced, "stress": layout.stressed}
    for kind, unit in (("energy", np.sqrt(data.sizes)[:, None]), ("forces", 1.0), ("stress", 1.0)):
        values, scale = (part.reshape(-1, places[kind].shape[1])[chosen[kind]] for part in stacked(data.labels, kind, data.sizes))
        values = values - references[:, None] if kind == "energy" else values
        known = np.isfinite(values)
        y[places[kind]] = np.where(known, values, 0.0)
        sigma[places[kind]] = np.where(known, noise[kind] * unit / scale, np.nan)
    return y, sigma


def observation_counts(labels: Sequence[Labels]) -> dict[str, int]:
    """{kind: number of known components}, of kinds that occur."""
    counts = {kind: sum(int(np.isfinite(getattr(label, kind)).sum()) for label in labels if label.has(kind)) for kind in KINDS}
    return {kind: n for kind, n in counts.items() if n}


def log_weights(data: TrainingData) -> float:
    """Σ log(σ_kind/σ) over all rows: what σ of their own, and √N of energies, add to any log likelihood."""
    known = [len(atoms) for atoms, label in zip(data.frames, data.labels, strict=True) if label.has("energy")]
    return sum(log_scales(data.labels).values()) - 0.5 * float(np.log(known).sum())


def subset(data: TrainingData, n: int, seed: int = 0) -> TrainingData:
    """Structures drawn at random, in their order, with at most ``n`` observations together (at least one structure)."""
    order = np.random.default_rng(seed).permutation(len(data.labels))
    total = np.cumsum(layout_of(data).lengths.sum(axis=1)[order])
    return data.some(sorted(order[: max(1, np.searchsorted(total, n, side="right"))].tolist()))
