"""What the data do: contributions of training structures, and errors by their number."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError
from soapkrr.plot.axes import BLUE, GREY, KINDS, ORANGE, new_axes
from soapkrr.structures import as_frames

#: Unit of a prediction of each kind.
UNITS = {"energy": "eV", "energies": "eV", "forces": "eV/Å", "stress": "eV/Å³"}

#: Parts of the structures that a learning curve goes through.
PARTS = (0.125, 0.25, 0.5, 0.75, 0.9)


def attribution(found, frames: list[Atoms] | None = None, n: int = 12, ax=None):
    """Bars of the largest contributions of training structures to a prediction, largest at the top.

    Of an energy signed contributions, whose sum with the prior and those not shown is the prediction; of arrays the root sums of squares
    over all components.

    Parameters
    ----------
    found : an `Attribution`, of ``model.attribution(frame, kind, frames)``.
    frames : the training structures in the order in which these were given, to name the bars by formula and config type.
    n : bars at most.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``found`` is no attribution, ``frames`` is of another length, or ``n`` is no positive number.
    """
    if not (hasattr(found, "contributions") and hasattr(found, "weight")):
        raise InputError(f"`found` must be an Attribution, as `model.attribution` returns it, received {type(found).__name__}.")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise InputError(f"`n` must be a positive integer, received {n!r}.")
    names = _names(len(found.weight), frames)
    largest = np.argsort(-found.weight, kind="stable")[:n]
    scalar = found.contributions.ndim == 1
    values = (found.contributions if scalar else found.weight)[largest]
    ax = new_axes(0.28 * len(largest) + 1.4) if ax is None else ax
    ax.barh(np.arange(len(largest)), values, color=np.where(values < 0, ORANGE, BLUE), height=0.75)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(np.arange(len(largest)), [names[k] for k in largest], fontsize=9)
    ax.invert_yaxis()
    text = "contribution" if scalar else "size of the contribution"
    ax.set(xlabel=f"{text}\nto the {found.kind} ({UNITS[found.kind]})", title=f"{len(largest)} of {len(names)} training structures")
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter("{x:g}")
    return ax


def _names(n: int, frames) -> list[str]:
    """Names of the training structures."""
    if frames is None:
        return [f"structure {k}" for k in range(n)]
    frames = as_frames(frames)
    if len(frames) != n:
        raise InputError(f"`frames` holds {len(frames)} structures, the attribution is to {n}: pass the training structures.")
    return [f"{k}  {atoms.symbols.get_chemical_formula()}  {atoms.info.get('config_type', '')}".rstrip() for k, atoms in enumerate(frames)]


def learning_curve(model, frames: list[Atoms], kind: str = "forces", sizes=None, seed: int = 0, ax=None):
    """Error of structures that are not fitted, against the number of those that are; no refits, from ``model.leave_out`` alone.

    In a random order, groups of n − size structures are left out in turn, each predicted by the ``size`` others; below half of n that is
    one group. The numbers are those of refits with the sparse points, hyper-parameters and reference energies of the whole fit, so that the
    curve of small sizes is rather too low. A size takes about as long as the fit.

    Parameters
    ----------
    model : a fitted potential.  frames : the structures and labels of its fit, in any order; isolated atoms are never left out.
    kind : ``"energy"`` (per atom), ``"forces"`` or ``"stress"``.
    sizes : numbers of structures that are fitted; None: an eighth, a quarter, a half, three quarters and nine tenths of them.
    seed : of the random order.  ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``kind`` is unknown, ``sizes`` are out of range, nothing of this kind can be left out, or
        ``frames`` are not those of the fit.
    """
    if kind not in KINDS:
        raise InputError(f"`kind` must be one of {sorted(KINDS)}, received {kind!r}.")
    frames = as_frames(frames)
    free = np.array([s for s, atoms in enumerate(frames) if len(atoms) > 1 or atoms.pbc.any()])
    order = np.random.default_rng(seed).permutation(free)
    numbers = _sizes(sizes, len(order))
    found = [_errors(model, frames, order, size, kind) for size in numbers]
    if not all(map(len, found)):
        raise InputError(f"no label of kind {kind!r} can be left out: choose a kind that the fit has labels of.")
    ax = new_axes() if ax is None else ax
    rmse, mae = [np.sqrt(np.mean(e**2)) for e in found], [np.abs(e).mean() for e in found]
    ax.plot(numbers, rmse, "o-", color=BLUE, label="RMSE")
    ax.plot(numbers, mae, "s--", color=ORANGE, label="MAE")
    ax.set(xscale="log", yscale="log", xlabel="structures fitted", ylabel=f"error ({KINDS[kind][3]})", title=f"{KINDS[kind][2]}, left out")
    _plain_ticks(ax, numbers, [*rmse, *mae])
    ax.legend(frameon=False, fontsize=9)
    return ax


def _sizes(sizes, n: int) -> list[int]:
    """Numbers of structures to fit, ascending, checked."""
    if n < 3:
        raise InputError(f"a learning curve needs at least 3 structures besides isolated atoms, received {n}.")
    if sizes is None:
        return sorted({min(max(round(part * n), 1), n - 1) for part in PARTS})
    given = np.asarray(sizes)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu" or (given < 1).any() or (given >= n).any():
        raise InputError(f"`sizes` must be whole numbers from 1 to {n - 1}: {n} structures can be left out, received {sizes!r}.")
    return sorted(set(given.tolist()))


def _errors(model, frames: list[Atoms], order: np.ndarray, size: int, kind: str) -> np.ndarray:
    """Errors of the labels of structures that are not among those fitted, in the unit of the figure."""
    n_out = len(order) - size
    group, place = np.zeros(len(frames), dtype=int), np.arange(len(order)) // n_out
    group[order] = np.where(place < len(order) // n_out, place + 1, 0)  # what is too few for a group of its own is only fitted
    left = model.leave_out(frames, by=group).of_kind(kind)
    left = left.some(left.group != left.names.index("0")) if "0" in left.names else left
    errors = left.error / (left.sizes[left.structure] if kind == "energy" else 1.0)
    return KINDS[kind][1] * KINDS[kind][4] * errors


def _plain_ticks(ax, numbers: list[int], values: list[float]) -> None:
    """Ticks at the sizes, and plain numbers for the errors."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    ax.set_xticks(numbers, [str(number) for number in numbers])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(ScalarFormatter() if max(values) < 10 * min(values) else NullFormatter())
    ax.set_ylim(min(values) / 1.3, max(values) * 1.3)
