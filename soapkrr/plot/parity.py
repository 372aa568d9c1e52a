"""Predicted against reference values."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.errors import LabelError
from soapkrr.labels import Observations, read_labels
from soapkrr.plot.axes import KINDS, checked_frames, new_axes
from soapkrr.prediction import Prediction


def parity(frames: Atoms | list[Atoms], prediction: Prediction, kind: str = "energy", ax=None, observations: Observations | None = None):
    """Predicted against reference values, with error bars of one predicted standard deviation where the prediction has them.

    Energies are per atom, relative to the sum of least-squares reference energies of the species (of one element: to the mean), so
    that structures of different composition share one axis.

    Parameters
    ----------
    frames : the labelled structures that were predicted.
    prediction : of ``frames``, in the same order.
    kind : ``"energy"`` (eV/atom), ``"forces"`` (eV/Å) or ``"stress"`` (GPa).
    ax : matplotlib axes to draw on; None makes a new figure.
    observations : names of labels and masks, as in a fit; None: the calculators' results.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, or the numbers of structures differ.
    LabelError : no structure has a label of this kind.
    """
    frames = checked_frames(frames, prediction, kind)
    reference, predicted, std = _points(frames, prediction, kind, observations)
    unit, _, title, error_unit, to_error = KINDS[kind]
    ax = new_axes() if ax is None else ax
    ax.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=1)
    _scatter(ax, reference, predicted, std)
    quantity = f"{kind}{_shift(frames)}" if kind == "energy" else kind
    ax.set(xlabel=f"reference {quantity} ({unit})", ylabel=f"predicted {quantity} ({unit})", title=title)
    _square(ax, np.concatenate([reference, predicted]))
    ax.text(
        0.04, 0.96, _summary(to_error * (predicted - reference), std, to_error, error_unit), transform=ax.transAxes, va="top", fontsize=9
    )
    return ax


def _points(frames, prediction: Prediction, kind: str, observations: Observations | None):
    """Reference and predicted values and standard deviations (or None) of every labelled component, in the unit of the axes."""
    labels = read_labels(frames, observations)
    have = [s for s, label in enumerate(labels) if label.has(kind)]
    if not have:
        raise LabelError(f"none of the {len(frames)} structures has a label of kind {kind!r}.")
    values, stds, factor = getattr(prediction, kind), getattr(prediction, f"{kind}_std"), KINDS[kind][1]
    reference = [getattr(labels[s], kind) for s in have]
    predicted = [values[s] for s in have]
    std = None if stds is None else [stds[s] for s in have]
    if kind == "energy":
        sizes = np.array([len(frames[s]) for s in have])
        atoms = _atomic_energies([frames[s] for s in have], np.array(reference))
        return (reference - atoms) / sizes, (predicted - atoms) / sizes, None if std is None else std / sizes
    columns = [None if x is None else factor * np.concatenate([np.ravel(v) for v in x]) for x in (reference, predicted, std)]
    known = np.isfinite(columns[0])
    return tuple(None if x is None else x[known] for x in columns)


def _atomic_energies(frames, energies: np.ndarray) -> np.ndarray:
    """(n_structures,) sums of the least-squares energy of each species, eV."""
    species = np.unique(np.concatenate([atoms.numbers for atoms in frames]))
    counts = np.array([[(atoms.numbers == z).sum() for z in species] for atoms in frames], dtype=float)
    sizes = counts.sum(axis=1)
    return counts @ np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=1e-10)[0]


def _shift(frames) -> str:
    """What energies are relative to, for the axis labels."""
    return " − mean" if len({int(z) for atoms in frames for z in atoms.numbers}) == 1 else " − atoms"


def _scatter(ax, reference, predicted, std) -> None:
    crowd = len(reference) > 300
    style = {"fmt": "o", "markersize": 2.5 if crowd else 4.5, "markeredgewidth": 0, "color": "#1f5fa8", "ecolor": "#e08a2e"}
    bars = {"elinewidth": 0.6 if crowd else 1.2, "alpha": 0.5 if crowd else 0.9, "rasterized": len(reference) > 3000, "zorder": 2}
    ax.errorbar(reference, predicted, yerr=std, **style, **bars)


def _square(ax, values: np.ndarray) -> None:
    """The same limits and ticks on both axes, a little wider than the points."""
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5
    ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
    ax.locator_params(nbins=5)


def _summary(errors, std, factor: float, unit: str) -> str:
    lines = [f"MAE  {np.abs(errors).mean():.3g} {unit}", f"RMSE  {np.sqrt((errors**2).mean()):.3g} {unit}"]
    if std is not None:
        within = [(np.abs(errors) <= k * factor * std).mean() for k in (1, 2)]
        lines.append(f"within 1 std  {within[0]:.0%}, 2 std  {within[1]:.0%}")
    return "\n".join(lines)
