"""Predicted against reference values, and the errors below."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.labels import Observations, read_labels
from soapkrr.metrics import Comparison
from soapkrr.plot.axes import BLUE, DENSE, GREY, KINDS, ORANGE, checked_frames, coloured_by_density, labelled_comparison, left_out, new_axes
from soapkrr.prediction import Prediction


def parity(frames: Atoms | list[Atoms], prediction: Prediction, kind: str = "energy", ax=None, observations: Observations | None = None):
    """Predicted against reference values, and below them the errors, which are often too small to be seen beside the values.

    Both have error bars of one predicted standard deviation where the prediction has them; from 2,000 points on, where bars would cover
    each other, colour says how many points are near. Energies are per atom, relative to the sum of
    least-squares energies of the species (of one element: to the mean), so that structures of different composition share one axis.
    Coverage, "within 1 std", leaves out components that vanish by symmetry, as `metrics.error_table` does.

    Parameters
    ----------
    frames : the labelled structures that were predicted.
    prediction : of ``frames``, in the same order.
    kind : ``"energy"`` (eV/atom; errors meV/atom), ``"forces"`` (eV/Å) or ``"stress"`` (GPa).
    ax : matplotlib axes to draw on; None makes a new figure. The errors go below them, on ``ax.child_axes[0]``.
    observations : names of labels and masks, as in a fit; None: the calculators' results.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, or the numbers of structures differ.
    LabelError : no structure has a label of this kind.
    """
    frames = checked_frames(frames, prediction, kind)
    found = labelled_comparison(frames, prediction, kind, observations)
    unit, _, title, error_unit, to_error = KINDS[kind]
    offset, relative = _offset(frames, kind, observations)
    reference, std = found.reference / to_error - offset, None if found.std is None else found.std / to_error
    ax = new_axes(6.3) if ax is None else ax
    ax.axline((0, 0), slope=1, color=GREY, linewidth=1, zorder=1)
    bars = _scatter(ax, reference, reference + found.errors / to_error, std)
    ax.set(ylabel=f"predicted {kind} ({unit}){relative}", title=title)
    _square(ax, reference, reference + found.errors / to_error, std)
    ax.text(0.04, 0.96, _summary(found, error_unit), transform=ax.transAxes, va="top", fontsize=9)
    if bars is not None:
        ax.legend([bars], ["± 1 std, predicted"], loc="lower right", frameon=False, fontsize=9, borderaxespad=0.2)
    _errors(ax, reference, found, error_unit).set(xlabel=f"reference {kind} ({unit}){relative}")
    return ax


def _offset(frames, kind: str, observations: Observations | None) -> tuple[np.ndarray | float, str]:
    """What is subtracted from energies per atom, eV, and a line of the labels that says so."""
    if kind != "energy":
        return 0.0, ""
    labels = read_labels(frames, observations)
    have = [s for s, label in enumerate(labels) if label.has("energy")]
    some = [frames[s] for s in have]
    atoms = _atomic_energies(some, np.array([labels[s].energy for s in have])) / [len(atoms) for atoms in some]
    one = len({int(z) for atoms in some for z in atoms.numbers}) == 1
    return atoms, "\nrelative to their mean" if one else "\nrelative to fitted energies of the atoms"


def _atomic_energies(frames, energies: np.ndarray) -> np.ndarray:
    """(n_structures,) sums of the least-squares energy of each species, eV."""
    species = np.unique(np.concatenate([atoms.numbers for atoms in frames]))
    counts = np.array([[(atoms.numbers == z).sum() for z in species] for atoms in frames], dtype=float)
    sizes = counts.sum(axis=1)
    return counts @ np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=1e-10)[0]


def _scatter(ax, x, y, std):
    """Points and their error bars, or their density; returns the bars for a legend, None where there are none."""
    if len(x) >= DENSE:
        coloured_by_density(ax, x, y)
        return None
    crowd = len(x) > 300
    style = {"fmt": "o", "markersize": 2.2 if crowd else 4, "markeredgewidth": 0, "color": BLUE, "ecolor": ORANGE}
    bars = {"elinewidth": 0.6 if crowd else 1.2, "alpha": 0.6 if crowd else 0.9, "zorder": 2}
    container = ax.errorbar(x, y, yerr=std, **style, **bars)
    return None if std is None else container


def _square(ax, reference, predicted, std) -> None:
    """The same limits and ticks on both axes, a little wider than the points and their error bars."""
    half = 0.0 if std is None else std
    low, high = min(reference.min(), (predicted - half).min()), max(reference.max(), (predicted + half).max())
    margin = 0.06 * float(high - low) or 0.5
    ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal", anchor="N")
    ax.locator_params(nbins=5)


def _errors(ax, reference, found: Comparison, unit: str):
    """The errors below the parity plot, in their own unit; returns the axes."""
    below = ax.inset_axes((0.0, -0.36, 1.0, 0.31), sharex=ax)
    ax.tick_params(labelbottom=False)
    below.axhline(0, color=GREY, linewidth=1, zorder=1)
    _scatter(below, reference, found.errors, found.std)
    most = float((np.abs(found.errors) + (0.0 if found.std is None else found.std)).max()) or 1.0
    below.set(ylim=(-1.08 * most, 1.08 * most), ylabel=f"error ({unit})")
    below.locator_params(axis="y", nbins=5)
    return below


def _summary(found: Comparison, unit: str) -> str:
    """Errors, and how many of them the error bars hold."""
    errors = found.errors
    lines = [f"MAE  {np.abs(errors).mean():.3g} {unit}", f"RMSE  {np.sqrt((errors**2).mean()):.3g} {unit}"]
    if found.std is not None and found.counted.any():
        lines += [f"within 1 std  {found.within(1):.0%}, 2 std  {found.within(2):.0%}"]
    return "\n".join([*lines, *left_out(found)])
