"""Figures of a check, as PNG in base64."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from soapkrr.plot.axes import PALETTE

if TYPE_CHECKING:
    from soapkrr.checking.report import Curve

#: Dots per inch of figures on a page.
DPI = 110


def figures(curves: Sequence[Curve]) -> list[str]:
    """One for each curve; none where matplotlib is not installed."""
    return [] if find_spec("matplotlib") is None else [png(partial(_draw, curve)) for curve in curves]


def png(draw: Callable, width: float = 5.2, height: float = 3.6) -> str:
    """What ``draw(ax)`` draws on axes of so many inches, without a window or pyplot's list of figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    draw(figure.subplots())
    buffer = BytesIO()
    canvas.print_png(buffer)
    return b64encode(buffer.getvalue()).decode()


def _draw(curve: Curve, ax) -> None:
    """Lines over x; names that begin with ``*`` are points on a diagonal, and long tails are cut off."""
    points = [name for name in curve.lines if name.startswith("*")]
    for number, (name, y) in enumerate(curve.lines.items()):
        colour = PALETTE[number % len(PALETTE)]
        if name in points:
            ax.plot(curve.x, y, ".", ms=3, color=colour, label=name[1:])
        else:
            ax.plot(curve.x, y, color=colour, label=name)
    values = np.concatenate([y[np.isfinite(y)] for y in curve.lines.values()])
    if points:
        low, high = min(curve.x.min(), values.min()), max(curve.x.max(), values.max())
        ax.plot([low, high], [low, high], color="0.6", lw=1, zorder=0)
    elif len(values) and values.max() > 20 * max(abs(values.min()), np.median(np.abs(values)), 1e-12):
        ax.set_yscale("symlog", linthresh=max(float(np.median(np.abs(values))), 1e-6))
    ax.set(title=curve.title, xlabel=curve.x_label, ylabel=curve.y_label)
    if len(curve.lines) > 1:
        ax.legend(fontsize=8)
