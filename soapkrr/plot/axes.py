"""What the figures share: axes, colours, and the units of each kind of observation."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from soapkrr.errors import InputError, LabelError, installing
from soapkrr.labels import Observations
from soapkrr.metrics import Comparison, check_lengths, comparisons
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Kind of observation → (unit on the axes, factor to it, title, unit of the errors, factor from one to the other).
KINDS = {
    "energy": ("eV/atom", 1.0, "Energy", "meV/atom", 1e3),
    "forces": ("eV/Å", 1.0, "Force components", "eV/Å", 1.0),
    "stress": ("GPa", 1 / units.GPa, "Stress components", "GPa", 1.0),
}

#: Colours of values, of error bars and of guides.
BLUE, ORANGE, GREY = "#1f5fa8", "#e08a2e", "0.55"

#: Colours of species and other series, which differ for colour-blind eyes too (after Okabe and Ito's set).
PALETTE = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#7a4b1e", "#000000", "#b8a80c")

#: Points from which colour says how many there are, in place of single error bars.
DENSE = 2_000


def checked_frames(frames, prediction: Prediction, kind: str) -> list[Atoms]:
    """The list of structures that were predicted, checked."""
    if kind not in KINDS:
        raise InputError(f"`kind` must be one of {sorted(KINDS)}, received {kind!r}.")
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    return frames


def labelled_comparison(frames: list[Atoms], prediction: Prediction, kind: str, observations: Observations | None) -> Comparison:
    """The components of one kind that have a label.

    Raises
    ------
    LabelError : there are none.
    """
    found = comparisons(frames, prediction, observations)
    if kind not in found:
        raise LabelError(f"none of the {len(frames)} structures has a label of kind {kind!r}.")
    return found[kind]


def comparison_with_std(frames, prediction: Prediction, kind: str, observations: Observations | None) -> tuple[list[Atoms], Comparison]:
    """Checked structures, and the components of one kind that have a label and a standard deviation.

    Raises
    ------
    InputError : there are no standard deviations.  LabelError : there is no label.
    """
    frames = checked_frames(frames, prediction, kind)
    found = labelled_comparison(frames, prediction, kind, observations)
    if found.std is None:
        raise InputError(f"`prediction` has no standard deviations of kind {kind!r}: predict with `uncertainty=True`.")
    return frames, found


def require_any(kept: np.ndarray, kind: str) -> None:
    """Raise `LabelError` where no component is kept."""
    if not kept.any():
        raise LabelError(f"every component of kind {kind!r} is zero by symmetry: there are no errors to compare.")


def new_axes(height: float = 4.6):
    """Axes of a new figure, 4.6 inches wide."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError(f"plots need matplotlib, which is not installed: {installing('plot')}.") from error
    return plt.subplots(figsize=(4.6, height), layout="constrained")[1]


def left_out(found: Comparison) -> list[str]:
    """A line that says how many components were not counted, if any."""
    return [f"{found.n_vanishing:,} zero by symmetry left out"] if found.n_vanishing else []


def density(x: np.ndarray, y: np.ndarray, bins: int = 90) -> np.ndarray:
    """(n,) number of points in the bin of each point, of so many bins along each axis over the range of the values."""
    counts, edges_x, edges_y = np.histogram2d(x, y, bins=bins)
    place = (np.clip(np.searchsorted(e, v, side="right") - 1, 0, bins - 1) for e, v in ((edges_x, x), (edges_y, y)))
    return counts[tuple(place)]


def coloured_by_density(ax, x: np.ndarray, y: np.ndarray):
    """Points whose colour says how many are near, densest on top; returns them."""
    n = density(x, y)
    order = np.argsort(n, kind="stable")
    style = {"s": 5, "linewidths": 0, "cmap": "viridis", "norm": "log", "rasterized": True, "zorder": 2}
    return ax.scatter(x[order], y[order], c=n[order], **style)
