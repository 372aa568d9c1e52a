"""Error bars against errors: coverage of intervals, sizes, and novelty."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError, LabelError
from soapkrr.labels import Observations
from soapkrr.metrics import check_lengths, comparisons_with_std
from soapkrr.metrics.calibration import CURVE, Covered
from soapkrr.plot.axes import (
    BLUE,
    GREY,
    KINDS,
    ORANGE,
    checked_frames,
    comparison_with_std,
    labelled_comparison,
    left_out,
    new_axes,
    require_any,
)
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Colours of the kinds of observation.
COLOURS = {"energy": ORANGE, "forces": BLUE, "stress": "#3a8f5c"}

#: Bins of equally many values, and values that each holds at least.
BINS, BIN = 12, 10

#: Errors smaller than the largest by more than this are below the figure.
SHOWN = 3e4


def reliability(frames: Atoms | list[Atoms], prediction: Prediction, ax=None, observations: Observations | None = None):
    """Observed against nominal coverage of ``prediction.interval``, a curve for each kind that has labels and standard deviations.

    On the diagonal intervals hold what they promise; below it they are too narrow, above it too wide. Conformal intervals of a calibrated
    model, else Gaussian ones. Components that vanish by symmetry are left out. After Kuleshov, Fenner and Ermon 2018, arXiv 1807.00263.

    Parameters
    ----------
    frames : the labelled structures that were predicted; best those that were not fitted.
    prediction : of ``frames``, in the same order, with standard deviations.
    ax, observations : as in `parity`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, the numbers of structures differ, or no kind has both labels and standard deviations.
    LabelError : no structure has a label, or all that counts vanishes by symmetry.
    """
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    found = comparisons_with_std(frames, prediction, observations)
    found = {kind: part for kind, part in found.items() if part.counted.any()}
    if not found:
        raise LabelError("every labelled component is zero by symmetry: there are no errors to compare.")
    ax = new_axes() if ax is None else ax
    ax.axline((0, 0), slope=1, color=GREY, linewidth=1, zorder=1)
    for kind, part in found.items():
        covered = Covered.of(part, prediction)
        observed = [covered.within[c].mean() for c in CURVE]
        label = f"{KINDS[kind][2].lower()} ({len(covered.errors):,})"
        ax.plot(CURVE, observed, "o-", color=COLOURS[kind], markersize=4, linewidth=1.5, label=label)
    ax.set(xlabel="nominal coverage of the interval", ylabel="observed coverage", title="Reliability")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.text(0.03, 0.97, "above the line: too wide\nbelow it: too narrow", transform=ax.transAxes, va="top", fontsize=8)
    ax.legend(frameon=False, fontsize=8, loc="lower right", borderaxespad=0.2, handlelength=1.2)
    return ax


def error_vs_std(
    frames: Atoms | list[Atoms], prediction: Prediction, kind: str = "forces", ax=None, observations: Observations | None = None
):
    """Root mean square error against root mean square predicted standard deviation, in bins of equally many values, with their identity.

    Both axes are logarithmic. Behind the bins every single \\|error\\|. A bar through each bin is one standard error of its root mean
    square, RMSE/√(2n), of n independent Gaussian errors. Components that vanish by symmetry, and those of no standard deviation, are
    left out. The reliability diagram of Levi et al. 2022, doi 10.3390/s22155540.

    Parameters
    ----------
    frames, prediction, kind, ax, observations : as in `calibration`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, the numbers of structures differ, or there are no standard deviations.
    LabelError : no structure has a label of this kind, or every one vanishes by symmetry.
    """
    frames, found = comparison_with_std(frames, prediction, kind, observations)
    keep = found.counted & (found.std > 0)
    require_any(keep, kind)
    size, std, unit = np.abs(found.errors[keep]), found.std[keep], KINDS[kind][3]
    ax = new_axes() if ax is None else ax
    ax.axline((std[0], std[0]), (2 * std[0], 2 * std[0]), color=GREY, linewidth=1, zorder=1, label="RMSE = std")
    _cloud(ax, std, size)
    x, y, n = binned(std, size)
    bars = ax.errorbar(x, y, yerr=y / np.sqrt(2 * n), fmt="o-", color=ORANGE, markersize=5, linewidth=1.5, zorder=3)
    bars.set_label("RMSE in bins")
    ax.set(xscale="log", yscale="log", xlabel=f"predicted std ({unit})", ylabel=f"|error| ({unit})", title=KINDS[kind][2])
    _limits(ax, std, np.concatenate([size, y]))
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    if found.n_vanishing:
        ax.text(0.97, 0.03, "\n".join(left_out(found)), transform=ax.transAxes, ha="right", fontsize=9)
    return ax


def novelty(frames: Atoms | list[Atoms], prediction: Prediction, kind: str = "forces", ax=None, observations: Observations | None = None):
    """Error against novelty: norm of each atom's force error, or energy per atom against the largest novelty of the structure.

    The line is at 1, the threshold that one in a hundred training atoms exceeds. Both axes are logarithmic; root mean square errors of bins
    of equally many values are drawn over the points.

    Parameters
    ----------
    frames, ax, observations : as in `calibration`.
    prediction : of ``frames``, by a calibrated model, with any standard deviations.
    kind : ``"forces"`` (eV/Å) or ``"energy"`` (meV/atom).

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is another, the numbers of structures differ, or the prediction has no novelty.
    LabelError : no structure has a label of this kind.
    """
    if kind not in ("forces", "energy"):
        raise InputError(f"`kind` must be 'forces' or 'energy', received {kind!r}.")
    frames = checked_frames(frames, prediction, kind)
    known = getattr(prediction, "novelty", None)
    if known is None:
        raise InputError(
            "`prediction` has no novelty: predict with `uncertainty=True` by a calibrated model, of `soapkrr.fit` or after "
            "`model.calibrate(frames)`."
        )
    found = labelled_comparison(frames, prediction, kind, observations)
    place = np.column_stack([found.structure, found.component // 3])
    which, owner = np.unique(place, axis=0, return_inverse=True)
    error = np.sqrt(np.bincount(owner.ravel(), found.errors**2))
    value = np.array([known[s][i] if kind == "forces" else known[s].max() for s, i in which])
    keep = (error > 0) & (value > 0)
    ax, unit = new_axes() if ax is None else ax, KINDS[kind][3]
    ax.axvline(1.0, color=GREY, linewidth=1, linestyle="--", zorder=1, label="threshold")
    _cloud(ax, value[keep], error[keep])
    x, y, _ = binned(value[keep], error[keep])
    ax.plot(x, y, "o-", color=ORANGE, markersize=5, linewidth=1.5, zorder=3, label="RMS in bins")
    name = "|force error| of an atom" if kind == "forces" else "|energy error|"
    what = "novelty of the atom" if kind == "forces" else "largest novelty in the structure"
    ax.set(xscale="log", yscale="log", xlabel=what, ylabel=f"{name} ({unit})", title="Novelty")
    _limits(ax, np.append(value[keep], 1.0), error[keep])
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    back = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2}
    ax.text(0.97, 0.03, _beyond(value, error, kind, unit), transform=ax.transAxes, ha="right", fontsize=9, bbox=back)
    return ax


def binned(std: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Root mean squares of both, and number of values, in bins of equally many in order of the first."""
    parts = np.array_split(np.argsort(std, kind="stable"), max(min(BINS, len(std) // BIN), 1))
    x, y = (np.array([np.sqrt(np.mean(values[part] ** 2)) for part in parts]) for values in (std, size))
    return x, y, np.array([len(part) for part in parts])


def _cloud(ax, x: np.ndarray, y: np.ndarray) -> None:
    many = len(x) > 300
    ax.plot(x, y, "o", color=BLUE, markersize=2 if many else 4, markeredgewidth=0, alpha=0.35, zorder=2, rasterized=len(x) > 3000)


def _limits(ax, x: np.ndarray, y: np.ndarray) -> None:
    """A little wider than the values, but for the smallest errors, which happen to be near zero or are so by symmetry."""
    low = max(float(np.quantile(y, 0.02)), float(y.max()) / SHOWN, 1e-300)
    ax.set(xlim=(x.min() / 1.3, x.max() * 1.3), ylim=(low / 1.3, y.max() * 4))
    _few_ticks(ax.xaxis, x.max() / x.min())


def _few_ticks(axis, ratio: float) -> None:
    """Plain numbers at 1, 2 and 5 of each decade; at 1 alone where there are many decades."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 100 else (1.0,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator() if ratio < 100 else LogLocator(subs=tuple(range(2, 10))))
    axis.set_minor_formatter(NullFormatter())


def _beyond(value: np.ndarray, error: np.ndarray, kind: str, unit: str) -> str:
    """How many are beyond the threshold, and errors on both sides of it."""
    beyond, what = value > 1, "atoms" if kind == "forces" else "structures"
    lines = [f"{beyond.sum():,} of {len(value):,} {what} beyond"]
    for name, side in (("up to 1", ~beyond), ("beyond", beyond)):
        if side.any():
            lines.append(f"RMS error {name}  {np.sqrt(np.mean(error[side] ** 2)):.3g} {unit}")
    return "\n".join(lines)
