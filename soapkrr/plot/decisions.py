"""What decisions by few reference calculations look like: relaxations, barriers, dynamics, screenings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from soapkrr.errors import InputError
from soapkrr.plot.axes import BLUE, GREY, ORANGE, new_axes

#: Colours of methods in the order given, and energies below which a relaxation has ended, eV.
COLOURS, LEAST = (BLUE, ORANGE, "#3a8f5c", "#8a5fa8", "0.4"), 1e-4

#: Standard deviations of a band around a path; part of the runs within a band of regrets.
WIDTH, WITHIN = 2.0, (0.1, 0.9)


def relaxation(energies: Mapping[str, Sequence[float]], ax=None):
    """Energy above the lowest of all against the number of reference calls, one line for each method, on a logarithmic axis.

    Energies within 0.1 meV of the lowest are drawn at the lower edge.

    Parameters
    ----------
    energies : {name: energies of the reference in the order of its calls, eV}, such as ``[r.energy for r in relaxation.references]``.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, or there are no energies, or ones that are not finite.
    """
    found = _rows(energies, "energies", 1)
    lowest = min(e.min() for e in found.values())
    ax = new_axes(3.6) if ax is None else ax
    for (name, e), colour in zip(found.items(), _colours(found), strict=True):
        calls = np.arange(1, len(e) + 1)
        ax.plot(
            calls, np.maximum(e - lowest, LEAST), "o-", color=colour, markersize=4, linewidth=1.3, label=f"{name} ({len(e)})", clip_on=False
        )
    ax.set(yscale="log", xlabel="reference calls", ylabel="energy above the lowest (eV)", title="Relaxation")
    ax.set_ylim(LEAST, None)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=9, title="calls in all", title_fontsize=9)
    return ax


def barrier(path, ax=None):
    """Energy along a path over a barrier with its band of ± two standard deviations; images that were calculated are full.

    Between the images lies the curve through their energies and forces.

    Parameters
    ----------
    path : a `Barrier`, of ``SurrogateNEB(...).run()``.  ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, or ``path`` is no barrier.
    """
    if not all(hasattr(path, name) for name in ("images", "energies", "stds", "calculated")):
        raise InputError(f"`path` must be a Barrier, as `SurrogateNEB.run` returns it, received {type(path).__name__}.")
    from ase.utils.forcecurve import fit_images
    from scipy.interpolate import PchipInterpolator

    fit = fit_images(path.images)
    way, smooth, curve = (np.asarray(part) for part in (fit.path, fit.fit_path, fit.fit_energies))
    band, known = WIDTH * PchipInterpolator(way, path.stds)(smooth), np.asarray(path.calculated, dtype=bool)
    ax = new_axes(3.6) if ax is None else ax
    ax.fill_between(smooth, curve - band, curve + band, color=BLUE, alpha=0.25, linewidth=0, label=f"± {WIDTH:g} std")
    ax.plot(smooth, curve, color=BLUE, linewidth=1.5)
    ax.plot(way[~known], path.energies[~known], "o", color=BLUE, markerfacecolor="white", markersize=6, label="predicted")
    ax.plot(way[known], path.energies[known], "o", color=BLUE, markersize=6, label="calculated")
    top = path.energies.max()
    ax.axhline(top, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    ax.set_ylim(None, top + 0.2 * np.ptp(curve))
    std = f"± {path.std:.3f} eV" if path.std >= 5e-4 else "eV, std below 0.001"
    ax.annotate(f"{path.barrier:.3f} {std}", (way[0], top), (0, 5), textcoords="offset points", fontsize=9)
    ax.set(xlabel="way along the path (Å)", ylabel="energy (eV)", title=f"Barrier by {path.calls} reference calls")
    ax.legend(frameon=False, fontsize=9, loc="lower center")
    return ax


def on_the_fly(run, ax=None):
    """Temperature, and how wrong a force may be, along dynamics on the fly; steps at which the reference was asked are marked.

    Crosses are the errors of forces that the calls found.

    Parameters
    ----------
    run : an `OnTheFly` that has run.  ax : two matplotlib axes, of temperature and of force errors; None makes a new figure.

    Returns
    -------
    (2,) array of matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``run`` has not run, or ``ax`` are not two.
    """
    if not getattr(run, "looks", None):
        raise InputError("`run` must be an OnTheFly after `run(atoms, steps)`: it has seen nothing yet.")
    upper, lower = _two_axes() if ax is None else _both(ax)
    steps, temperatures, doubts = (np.array([getattr(look, name) for look in run.looks]) for name in ("step", "temperature", "doubt"))
    calls = [call for call in run.calls if not call.failure]
    for one in (upper, lower):
        for call in calls:
            one.axvline(call.step, color=ORANGE, linewidth=0.8, alpha=0.6, zorder=0)
    upper.plot(steps, temperatures, color=BLUE, linewidth=1)
    upper.set(ylabel="temperature (K)", title=f"{len(calls)} reference calls in {steps.max():,} steps")
    known = np.isfinite(doubts) & (doubts > 0)
    lower.plot(steps[known], doubts[known], color=BLUE, linewidth=1, label="a force may be wrong by")
    found = [(call.step, call.error) for call in calls if np.isfinite(call.error) and call.error > 0]
    lower.plot(*np.array(found).reshape(-1, 2).T, "x", color=ORANGE, markersize=5, label="was wrong by, at a call")
    lower.axhline(run.threshold, color=GREY, linewidth=1, linestyle="--", label="threshold")
    lower.set(yscale="log", xlabel="step", ylabel="force error (eV/Å)")
    lower.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=3, columnspacing=1.0, handlelength=1.5)
    return np.array([upper, lower])


def _two_axes():
    """Two axes over each other in a new figure."""
    first = new_axes(4.6)
    figure = first.figure
    first.remove()
    return figure.subplots(2, 1, sharex=True)


def _both(ax) -> tuple:
    found = np.ravel(np.asarray(ax, dtype=object))
    if len(found) != 2:
        raise InputError(f"`ax` must be two axes, of temperature and of force errors, received {len(found)}.")
    return tuple(found)


def regret(runs: Mapping[str, Sequence[Sequence[float]]], ax=None, unit: str = "eV/atom"):
    """What the best candidate found so far lies above the best of all, against the number of labels: mean of runs, and where most are.

    The band holds eight in ten runs of each method.

    Parameters
    ----------
    runs : {name: (n_runs, n_labels) regrets, at least 0}.  ax : matplotlib axes to draw on; None makes a new figure.  unit : of the values.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, or there are no runs, or runs of different lengths.
    """
    found = _rows(runs, "runs", 2)
    ax = new_axes(3.6) if ax is None else ax
    for (name, values), colour in zip(found.items(), _colours(found), strict=True):
        labels = np.arange(1, values.shape[1] + 1)
        low, high = np.quantile(values, WITHIN, axis=0)
        ax.fill_between(labels, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(labels, values.mean(axis=0), color=colour, linewidth=1.5, label=f"{name} ({len(values)} run{'s' * (len(values) != 1)})")
    ax.set(xlabel="labels", ylabel=f"regret ({unit})", title="Screening", xlim=(1, None), ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=9)
    return ax


def _rows(given, name: str, dimensions: int) -> dict[str, np.ndarray]:
    """Arrays of so many dimensions by name, checked."""
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"`{name}` must be a mapping of one name or more to numbers, received {type(given).__name__}.")
    found = {}
    for key, values in given.items():
        try:
            found[str(key)] = np.array(values, dtype=float)
        except (TypeError, ValueError) as error:
            raise InputError(f"`{name}`: {key!r} must be numbers in rows of one length ({error}).") from error
        array = found[str(key)]
        if array.ndim != dimensions or not array.size or not np.isfinite(array).all():
            raise InputError(f"`{name}`: {key!r} must be finite numbers of {dimensions} dimensions, received shape {array.shape}.")
    return found


def _colours(found) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(len(found))]
