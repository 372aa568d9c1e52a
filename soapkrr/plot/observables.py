"""Observables with their bars: numbers, curves, equations of state, phonon bands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from soapkrr.errors import InputError
from soapkrr.plot.axes import BLUE, GREY, ORANGE, PALETTE, new_axes

#: Colours and dashes of several curves, told apart in grey too.
STYLES = tuple(zip((*PALETTE[:5], "0.2"), ("-", "--", "-.", ":", "-", "--"), strict=True))


def bars(result, ax=None):
    """Numbers of one unit with their standard deviations, first at the top; of several units those that most numbers have.

    Parameters
    ----------
    result : what a function of `soapkrr.observables` returned.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, or ``result`` has no numbers.
    """
    numbers = list(getattr(result, "numbers", {}).values())
    if not numbers:
        raise InputError(f"`result` must be numbers of `soapkrr.observables`, received {type(result).__name__}.")
    (unit, _), *_ = Counter(number.unit for number in numbers).most_common(1)
    shown = [number for number in numbers if number.unit == unit]
    ax = new_axes(0.32 * len(shown) + 1.1) if ax is None else ax
    y, std = np.arange(len(shown)), [number.std for number in shown]
    known = None if any(s is None for s in std) else std
    ax.errorbar([number.value for number in shown], y, xerr=known, fmt="o", color=BLUE, ecolor=ORANGE, capsize=4, elinewidth=2)
    ax.set_yticks(y, [number.name for number in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.set(xlabel=f"value ± std ({unit})" if unit else "value ± std")
    return ax


def curve(x, y, std=None, *, xlabel: str, ylabel: str, points: bool = False, ax=None):
    """A curve with a band of one and of two standard deviations.

    Parameters
    ----------
    x, y, std : (n,); std None: no band.  xlabel, ylabel : with units.  points : mark the values.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed.
    """
    ax = new_axes(3.6) if ax is None else ax
    if std is not None:
        band(ax, np.asarray(x), np.asarray(y), np.asarray(std), BLUE)
    ax.plot(x, y, "o-" if points else "-", color=BLUE, markersize=4, linewidth=1.5)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def band(ax, x: np.ndarray, y: np.ndarray, std: np.ndarray, colour) -> None:
    """Bands of two standard deviations and of one."""
    for width, alpha in ((2, 0.15), (1, 0.25)):
        ax.fill_between(x, y - width * std, y + width * std, color=colour, alpha=alpha, linewidth=0)


def energy_volume(equations: Mapping[str, object], ax=None, tangents=()):
    """Energy-volume curves of equations of state with the energies they were fitted to, and common tangents of pairs of them.

    Parameters
    ----------
    equations : {name: `EquationOfState`}.  tangents : pairs of points (volume, energy) to join.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed.
    """
    ax = new_axes(3.8) if ax is None else ax
    for (name, eos), (colour, dashes) in zip(equations.items(), STYLES * (1 + len(equations) // len(STYLES)), strict=False):
        V = np.linspace(eos.volume.min(), eos.volume.max(), 200)
        ax.plot(V, eos(V), linestyle=dashes, color=colour, label=name)
        ax.errorbar(eos.volume, eos.energy, yerr=eos.energy_std, fmt="o", color=colour, markersize=3, capsize=2, elinewidth=1)
    for (V1, E1), (V2, E2) in tangents:
        ax.plot([V1, V2], [E1, E2], color=GREY, linewidth=1, zorder=1)
    ax.set(xlabel="volume (Å³/atom)", ylabel="energy (eV/atom)")
    ax.legend(frameon=False)
    return ax


def phonon_bands(distance, frequency, std, ticks, labels, ax=None):
    """Phonon bands with a band of two standard deviations about each; imaginary frequencies are drawn as negative ones.

    Parameters
    ----------
    distance : (n,) along the path.  frequency, std : (n, n_bands), THz; std None: no bands.
    ticks, labels : places and names of the special points.  ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed.
    """
    ax = new_axes(3.8) if ax is None else ax
    for k, branch in enumerate(np.asarray(frequency).T):
        if std is not None:
            ax.fill_between(distance, branch - 2 * std[:, k], branch + 2 * std[:, k], color=BLUE, alpha=0.2, linewidth=0)
        ax.plot(distance, branch, color=BLUE, linewidth=1.2)
    for tick in ticks:
        ax.axvline(tick, color="0.85", linewidth=0.8, zorder=0)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_xticks(ticks, ["Γ" if label == "G" else label for label in labels])
    ax.set(xlim=(distance[0], distance[-1]), ylabel="frequency (THz)", xlabel="wave vector")
    return ax
