"""Errors of groups of structures, or of species, beside each other."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from soapkrr.errors import InputError
from soapkrr.labels import Observations
from soapkrr.metrics import Comparison, members_by
from soapkrr.plot.axes import BLUE, GREY, KINDS, ORANGE, checked_frames, labelled_comparison, new_axes
from soapkrr.prediction import Prediction

#: Quantiles at the ends of the lines and of the boxes.
LINES, BOXES = (0.05, 0.95), (0.25, 0.75)


def residuals(
    frames: Atoms | list[Atoms],
    prediction: Prediction,
    kind: str = "forces",
    by: str = "config_type",
    ax=None,
    observations: Observations | None = None,
):
    """Errors, predicted less reference, of each group: box of the middle half, line of the middle 90 %, median, and RMSE.

    A box off zero is a bias of the group, a long one a lack of data or of resolution. Groups are in order of their root mean square
    error, the largest on top.

    Parameters
    ----------
    frames, prediction, kind, ax, observations : as in `parity`.
    by : a name in `info` of the structures, ``"species"`` of the atoms (of forces), or ``"formula"``.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, the numbers of structures differ, or ``by`` is ``"species"`` and the
        kind is not forces.
    LabelError : no structure has a label of this kind.
    """
    frames = checked_frames(frames, prediction, kind)
    found = labelled_comparison(frames, prediction, kind, observations)
    groups = {name: found.errors[chosen] for name, chosen in _members(frames, found, by).items() if chosen.any()}
    rmse = {name: float(np.sqrt(np.mean(errors**2))) for name, errors in groups.items()}
    names = sorted(groups, key=rmse.__getitem__)
    ax, unit = new_axes(0.42 * len(names) + 1.5) if ax is None else ax, KINDS[kind][3]
    ax.axvline(0, color=GREY, linewidth=1, zorder=1)
    for k, name in enumerate(names):
        low, high = np.quantile(groups[name], LINES)
        first, third = np.quantile(groups[name], BOXES)
        ax.plot([low, high], [k, k], color=BLUE, linewidth=1.5, zorder=2, solid_capstyle="butt")
        ax.barh(k, third - first, left=first, height=0.5, color=BLUE, alpha=0.55, zorder=2, linewidth=0)
        ax.plot([np.median(groups[name])] * 2, [k - 0.25, k + 0.25], color=ORANGE, linewidth=2.5, zorder=3, solid_capstyle="butt")
        ax.annotate(f"{rmse[name]:.3g}", (1.02, k), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    ax.set_yticks(range(len(names)), [f"{name}  ({len(groups[name]):,})" for name in names], fontsize=9)
    ax.annotate("RMSE", (1.02, len(names) - 0.45), xycoords=("axes fraction", "data"), fontsize=9, color=GREY)
    most = max(max(abs(q) for q in np.quantile(errors, LINES)) for errors in groups.values()) or 1.0
    ax.set(xlim=(-1.08 * most, 1.08 * most), ylim=(-0.6, len(names) - 0.4), xlabel=f"error ({unit})", title=KINDS[kind][2])
    ax.locator_params(axis="x", nbins=5)
    return ax


def _members(frames: list[Atoms], found: Comparison, by: str) -> dict[str, np.ndarray]:
    """{group: (n,) bool, which of the components are of it}."""
    if by == "species":
        if found.kind != "forces":
            raise InputError(f"`by`='species' is of forces, which belong to atoms; received `kind`={found.kind!r}.")
        of_atom = np.concatenate([atoms.numbers for atoms in frames])
        starts = np.cumsum([0, *map(len, frames)])
        z = of_atom[starts[found.structure] + found.component // 3]
        return {chemical_symbols[number]: z == number for number in np.unique(z)}
    if by == "formula":
        formulas = [atoms.symbols.get_chemical_formula() for atoms in frames]
        members = {name: [s for s, other in enumerate(formulas) if other == name] for name in formulas}
    else:
        members = members_by(frames, by)
    return {name: np.isin(found.structure, places) for name, places in members.items()}
