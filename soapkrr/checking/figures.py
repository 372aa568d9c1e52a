"""Figures of a check, as PNG in base64."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from soapkrr.checking.report import Curve

COLOURS = ("#1f5fa8", "#e08a2e", "#2a7f4f", "#8a3ea8", "#b0323a", "0.4")


def figures(curves: Sequence[Curve]) -> list[str]:
    """One for each curve; none where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return []
    drawn = []
    for curve in curves:
        figure = Figure(figsize=(5.2, 3.6), layout="constrained", dpi=110)
        _draw(figure.subplots(), curve)
        buffer = BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        drawn.append(b64encode(buffer.getvalue()).decode())
    return drawn


def _draw(ax, curve: Curve) -> None:
    """Lines over x; names that begin with ``*`` are points on a diagonal, and long tails are cut off."""
    points = [name for name in curve.lines if name.startswith("*")]
    for number, (name, y) in enumerate(curve.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
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
