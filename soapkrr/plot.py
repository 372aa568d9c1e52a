"""Figures. They need matplotlib: ``pip install "soapkrr[plot]"``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms, units
from scipy.special import erf

from soapkrr.errors import InputError, LabelError
from soapkrr.labels import read_labels
from soapkrr.metrics import UNITS, check_lengths, residuals
from soapkrr.observations import Observations
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Kind of observation → (unit on the axes, factor to it, title, unit of the errors, factor from one to the other).
KINDS = {
    "energy": ("eV/atom", 1.0, "Energy", "meV/atom", 1e3),
    "forces": ("eV/Å", 1.0, "Force components", "eV/Å", 1.0),
    "stress": ("GPa", 1 / units.GPa, "Stress components", "GPa", 1.0),
}


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
    frames = _checked(frames, prediction, kind)
    reference, predicted, std = _points(frames, prediction, kind, observations)
    unit, _, title, error_unit, to_error = KINDS[kind]
    ax = _new_axes() if ax is None else ax
    ax.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=1)
    _scatter(ax, reference, predicted, std)
    quantity = f"{kind}{_shift(frames)}" if kind == "energy" else kind
    ax.set(xlabel=f"reference {quantity} ({unit})", ylabel=f"predicted {quantity} ({unit})", title=title)
    _square(ax, np.concatenate([reference, predicted]))
    ax.text(
        0.04, 0.96, _summary(to_error * (predicted - reference), std, to_error, error_unit), transform=ax.transAxes, va="top", fontsize=9
    )
    return ax


def calibration(
    frames: Atoms | list[Atoms],
    prediction: Prediction,
    kind: str = "energy",
    ax=None,
    observations: Observations | None = None,
    noise: Mapping[str, float] | None = None,
):
    """Observed against expected fraction of errors within k predicted standard deviations, for k from 0 to 4.

    Expected of a Gaussian: erf(k/√2). A curve on the diagonal is calibrated; below it the error bars are too narrow, above it too wide.
    k = 1 and 2 are marked. In the corner: how many standard deviations hold 68.3 % of the errors, 1 if calibrated.

    Parameters
    ----------
    frames : the labelled structures that were predicted; best those that were not fitted.
    prediction : of ``frames``, in the same order, with the standard deviations of ``kind``.
    kind, ax, observations : as in `parity`.
    noise : the levels of a fit (``model.noise_``), added to the predicted variances: what the model expects of labels, where the
        standard deviations alone are those of its mean. None: not added.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, the numbers of structures differ, or there are no standard deviations.
    LabelError : no structure has a label of this kind.
    """
    frames = _checked(frames, prediction, kind)
    found = residuals(frames, prediction, observations)
    if kind not in found:
        raise LabelError(f"none of the {len(frames)} structures has a label of kind {kind!r}.")
    errors, std = found[kind]
    if std is None:
        raise InputError(f"`prediction` has no standard deviations of kind {kind!r}: predict with `uncertainty=True`.")
    if noise is not None:
        std = np.hypot(std, _label_noise(frames, kind, observations, noise))
    k = np.linspace(0.0, 4.0, 401)
    ratio = _ratios(errors, std)
    expected, observed = erf(k / np.sqrt(2)), np.searchsorted(np.sort(ratio), k, side="right") / len(ratio)
    ax = _new_axes() if ax is None else ax
    ax.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=1)
    ax.plot(expected, observed, color="#1f5fa8", linewidth=1.8, zorder=2)
    ax.plot(expected[[100, 200]], observed[[100, 200]], "o", color="#e08a2e", markersize=7, zorder=3)
    ax.set(xlabel="expected fraction of errors", ylabel="observed fraction of errors", title=KINDS[kind][2])
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.text(0.04, 0.96, _calibration_summary(ratio, observed), transform=ax.transAxes, va="top", fontsize=9)
    ax.text(0.96, 0.04, "error bars too narrow", transform=ax.transAxes, ha="right", fontsize=8, color="0.5")
    return ax


def _label_noise(frames, kind: str, observations: Observations | None, noise: Mapping[str, float]):
    """Noise of the labels in the units of `metrics.UNITS`; of an energy per atom σ/√N."""
    if kind not in noise:
        raise InputError(f"`noise` has no level of kind {kind!r}, only {sorted(noise)}.")
    level = UNITS[kind][1] * noise[kind]
    if kind != "energy":
        return level
    labels = read_labels(frames, observations)
    return level / np.sqrt([len(atoms) for atoms, label in zip(frames, labels, strict=True) if label.has("energy")])


def _ratios(errors: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Sizes of the errors in standard deviations; 0 where both are zero, by symmetry."""
    size = np.abs(errors)
    return np.divide(size, std, out=np.where(size > 0, np.inf, 0.0), where=std > 0)


def _calibration_summary(ratio: np.ndarray, observed: np.ndarray) -> str:
    width = np.quantile(ratio, erf(np.sqrt(0.5)), method="higher")
    within = "\n".join(f"within {k} std  {observed[100 * k]:.1%} (Gaussian {erf(k / np.sqrt(2)):.1%})" for k in (1, 2))
    return f"{within}\n68.3% within {width:.2f} std"


def _checked(frames, prediction: Prediction, kind: str) -> list[Atoms]:
    """The list of structures."""
    if kind not in KINDS:
        raise InputError(f"`kind` must be one of {sorted(KINDS)}, received {kind!r}.")
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    return frames


def _new_axes():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError('plots need matplotlib, which is not installed: pip install "soapkrr[plot]".') from error
    return plt.subplots(figsize=(4.6, 4.6), layout="constrained")[1]


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
