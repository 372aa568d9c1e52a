"""Do the error bars hold? Observed against expected fractions of errors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from scipy.special import erf

from soapkrr.errors import InputError
from soapkrr.labels import Observations, read_labels
from soapkrr.metrics import UNITS
from soapkrr.plot.axes import BLUE, GREY, KINDS, ORANGE, comparison_with_std, left_out, new_axes, require_any
from soapkrr.prediction import Prediction

#: Numbers of standard deviations of the curve, and the fraction of a Gaussian's errors within each.
K = np.linspace(0.0, 4.0, 401)
EXPECTED = erf(K / np.sqrt(2))

#: Error bars that have to be stretched by less than this part are called about right.
TOLERANCE = 0.1

#: Part of the errors that may be missing within two standard deviations before the tails are said to be heavy.
TAIL = 0.05


def calibration(
    frames: Atoms | list[Atoms],
    prediction: Prediction,
    kind: str = "energy",
    ax=None,
    observations: Observations | None = None,
    noise=None,
):
    """Observed against expected fraction of errors within k predicted standard deviations, for k from 0 to 4.

    Expected of a Gaussian: erf(k/√2). A curve on the diagonal is calibrated; below it the error bars are too narrow, above it too wide.
    k = 1 and 2 are marked. Beside it: how many standard deviations hold 68.3 % of the errors, 1 if calibrated. Components that vanish by
    symmetry, with neither error nor error bar, are left out, and how many is said.

    Parameters
    ----------
    frames : the labelled structures that were predicted; best those that were not fitted.
    prediction : of ``frames``, in the same order, with the standard deviations of ``kind``.
    kind, ax, observations : as in `parity`.
    noise : a fitted potential, or the levels of its fit (``model.noise_``), added to the predicted variances: what the model expects of
        labels, where the standard deviations alone are those of its mean. A second, dashed curve is then that without noise.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, the numbers of structures differ, or there are no standard deviations.
    LabelError : no structure has a label of this kind, or every one vanishes by symmetry.
    """
    frames, found = comparison_with_std(frames, prediction, kind, observations)
    require_any(found.counted, kind)
    std = found.std if noise is None else np.hypot(found.std, _label_noise(frames, kind, observations, noise))
    ratio = _ratios(found.errors, std)[found.counted]
    ax = new_axes() if ax is None else ax
    ax.axline((0, 0), slope=1, color=GREY, linewidth=1, zorder=1)
    curves = [_curve(ax, ratio, "with noise", "-")]
    if noise is not None:
        curves.append(_curve(ax, _ratios(found.errors, found.std)[found.counted], "without noise", "--"))
    ax.set(xlabel="expected fraction of errors", ylabel="observed fraction of errors", title=KINDS[kind][2])
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    _write(ax, "\n".join([_summary(ratio, curves[0]), *left_out(found)]), curves)
    return ax


def _curve(ax, ratio: np.ndarray, label: str, style: str) -> np.ndarray:
    """Draw the observed fractions, with marks at one and two standard deviations; returns them."""
    observed = np.searchsorted(np.sort(ratio), K, side="right") / len(ratio)
    ax.plot(EXPECTED, observed, style, color=BLUE, linewidth=1.8 if style == "-" else 1.3, zorder=2, label=label)
    ax.plot(EXPECTED[[100, 200]], observed[[100, 200]], "o", color=ORANGE, markersize=7 if style == "-" else 5, zorder=3)
    return observed


def _write(ax, text: str, curves: list[np.ndarray]) -> None:
    """The summary, and the legend of two curves, in the corner that the curves leave free, above or below the diagonal."""
    below = _covered(1 - EXPECTED, [1 - observed for observed in curves]) < _covered(EXPECTED, curves)
    side = {"x": 0.97, "y": 0.04, "va": "bottom", "ha": "right"} if below else {"x": 0.03, "y": 0.97, "va": "top", "ha": "left"}
    ax.text(s=text, transform=ax.transAxes, fontsize=9, zorder=4, **side)
    if len(curves) > 1:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.27)} if below else {"loc": "upper left", "bbox_to_anchor": (0.0, 0.74)}
        ax.legend(frameon=False, fontsize=9, **place)


def _covered(expected: np.ndarray, curves: list[np.ndarray]) -> int:
    """Points of the curves that what is written in the upper left corner would cover."""
    boxes = [(0.66, 0.7), (0.45, 0.57)][: len(curves)]
    return sum(int(((expected < right) & (observed > bottom)).sum()) for right, bottom in boxes for observed in curves)


def _label_noise(frames, kind: str, observations: Observations | None, noise):
    """Noise of the labels in the units of `metrics.UNITS`; of an energy per atom σ/√N."""
    noise = getattr(noise, "noise_", noise)
    if not isinstance(noise, Mapping):
        raise InputError(f"`noise` must be a fitted potential or its `noise_`, received {noise!r}.")
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


def _summary(ratio: np.ndarray, observed: np.ndarray) -> str:
    width = float(np.quantile(ratio, EXPECTED[100], method="higher"))
    within = "\n".join(f"within {k} std  {observed[100 * k]:.1%} (Gaussian {EXPECTED[100 * k]:.1%})" for k in (1, 2))
    return f"{_verdict(width, observed[200])}\n{within}\n68.3% within {width:.2f} std"


def _verdict(width: float, within_two: float) -> str:
    """What the error bars are like, of which ``width`` hold as many errors as one of a Gaussian."""
    if abs(width - 1) > TOLERANCE:
        return "error bars too narrow" if width > 1 else "error bars too wide"
    return "error bars about right" + (",\nbut too many large errors" if within_two < EXPECTED[200] - TAIL else "")
