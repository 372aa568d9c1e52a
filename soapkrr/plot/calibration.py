"""Do the error bars hold? Observed against expected fractions of errors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from scipy.special import erf

from soapkrr.errors import InputError, LabelError
from soapkrr.labels import Observations, read_labels
from soapkrr.metrics import UNITS, residuals
from soapkrr.plot.axes import KINDS, checked_frames, new_axes
from soapkrr.prediction import Prediction


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
    frames = checked_frames(frames, prediction, kind)
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
    ax = new_axes() if ax is None else ax
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
