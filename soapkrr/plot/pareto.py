"""What noise levels trade: errors of one kind of label against those of another."""

from __future__ import annotations

import numpy as np

from soapkrr.errors import InputError
from soapkrr.plot.axes import BLUE, GREY, ORANGE, new_axes

#: Axis of each kind of error and the factor to its unit.
AXES = {"energy": ("Energies (meV/√atom)", 1e3), "forces": ("Forces (meV/Å)", 1e3), "stress": ("Stress (meV/Å³)", 1e3)}

#: Errors so many times the least of their kind are what a balanced score allows.
BOUND = 1.15

#: Errors that differ by more than this factor have a logarithmic axis.
WIDE = 2.5


def pareto(front, ax=None):
    """Errors of left-out structures for the noise levels of a Pareto front: energies against forces, colours for the stress.

    Root mean square errors, of energies those of ΔE/√N; axes are logarithmic where errors differ by more than `WIDE`. The choice of the
    fit has a ring; the shaded corner holds errors of at most 1.15 × the least of both kinds.

    Parameters
    ----------
    front : a `Front`, of ``model.pareto()``, with at least two kinds of labels.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``front`` is no front, or has one kind of labels, which trades nothing.
    """
    if not (hasattr(front, "errors") and hasattr(front, "chosen")):
        raise InputError(f"`front` must be a Front, as `model.pareto()` returns it, received {type(front).__name__}.")
    errors = {kind: AXES[kind][1] * np.asarray(e) for kind, e in front.errors.items()}
    if len(errors) < 2:
        raise InputError(f"`front` has errors of {', '.join(errors)} alone, expected at least two kinds of labels: one trades nothing.")
    first, second, *third = errors
    x, y = errors[first], errors[second]
    ax = new_axes(4.0) if ax is None else ax
    order = np.argsort(x, kind="stable")
    if third:
        colours = ax.scatter(x, y, c=errors[third[0]], cmap="viridis_r", norm="log", s=40, zorder=3)
        bar = ax.figure.colorbar(colours, ax=ax, label=AXES[third[0]][0])
        _plain_ticks(bar.ax.yaxis)
    else:
        ax.plot(x[order], y[order], "o-", color=BLUE, markersize=5, linewidth=1, zorder=3)
    ax.plot(x[front.chosen], y[front.chosen], "o", markersize=13, markerfacecolor="none", color=ORANGE, markeredgewidth=2, zorder=4)
    ax.annotate("chosen", (x[front.chosen], y[front.chosen]), (9, 9), textcoords="offset points", color=ORANGE)
    ax.set(xlabel=AXES[first][0], ylabel=AXES[second][0], title="Errors of left-out structures")
    for axis, values in ((ax.xaxis, x), (ax.yaxis, y)):
        if values.max() > WIDE * values.min():
            (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
            _plain_ticks(axis)
    low_x, low_y = ax.get_xlim()[0], ax.get_ylim()[0]
    ax.fill([low_x, BOUND * x.min(), BOUND * x.min(), low_x], [low_y, low_y, BOUND * y.min(), BOUND * y.min()], color=GREY, alpha=0.2, lw=0)
    ax.set(xlim=(low_x, None), ylim=(low_y, None))
    return ax


def _plain_ticks(axis) -> None:
    """Numbers without powers of ten on a logarithmic axis, few enough not to overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=8))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
