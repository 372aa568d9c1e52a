"""A map of the data: environments, or structures, in the plane of their two largest principal components."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from soapkrr.errors import InputError
from soapkrr.labels import Observations
from soapkrr.plot.axes import KINDS, PALETTE, checked_frames, labelled_comparison, new_axes
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: What points may be coloured by.
COLOURS = ("species", "error", "std", "novelty")

#: Environments from which the components are taken, and those drawn at most; drawn at random where there are more.
ROWS, DRAWN = 3_000, 20_000

#: Quantiles at the ends of the colour scale, and the largest ratio of these: what vanishes by symmetry has no say.
ENDS, DECADES = (0.02, 0.98), 1e3


def data_map(
    model,
    frames: Atoms | list[Atoms],
    prediction: Prediction | None = None,
    colour: str = "species",
    per: str = "atom",
    symbol: str | None = None,
    ax=None,
    observations: Observations | None = None,
):
    """Environments of atoms in the plane of the two largest principal components of their descriptors, with the sparse points of the model.

    What is far from every sparse point is far from what the model knows. Of structures (``per="structure"``) means over their atoms, as
    sparse points are environments, are without them.

    Parameters
    ----------
    model : a fitted potential, whose first descriptor is drawn.
    frames : structures; labelled ones for ``colour="error"``.
    prediction : of ``frames``, needed for every colour but ``"species"``.
    colour : ``"species"`` (of structures: their formula); ``"error"``: norm of the force error, eV/Å, of structures the energy's in
        meV/atom; ``"std"``: the same of standard deviations; ``"novelty"``: of the atom, of structures the largest.
    per : ``"atom"`` or ``"structure"``.
    symbol : of atoms, draw those of this element alone: between elements descriptors differ by more than within one.
    ax, observations : as in `parity`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, a parameter is unknown, or the prediction is missing or lacks what is drawn.
    LabelError : ``colour`` is ``"error"`` and no structure has a label.
    """
    if colour not in COLOURS:
        raise InputError(f"`colour` must be one of {COLOURS}, received {colour!r}.")
    if per not in ("atom", "structure"):
        raise InputError(f"`per` must be 'atom' or 'structure', received {per!r}.")
    frames = as_frames(frames)
    chosen = _chosen(frames)
    values = None if colour == "species" else _values(frames, prediction, colour, per, observations)
    x, owner = _descriptors(model, frames, chosen)
    kept = _kept(frames, chosen, per, symbol)
    x, points = x[kept], _points(model, symbol) if per == "atom" else []
    mean, axes, share = _components(x)
    place = (x - mean) @ axes
    if per == "structure":
        sizes = np.bincount(owner, minlength=len(chosen))
        place = np.column_stack([np.bincount(owner, place[:, k], len(chosen)) / sizes for k in range(2)])
    ax = new_axes(4.2) if ax is None else ax
    if values is None:
        _by_name(ax, place, _names(frames, chosen, per, kept))
    else:
        found = np.concatenate([np.atleast_1d(values[s]) for s in chosen])
        _by_value(ax, place, found[kept] if per == "atom" else found, _label(colour, per))
    if len(points):
        at = (np.concatenate(points) - mean) @ axes
        style = {"s": 34, "facecolors": "none", "edgecolors": "0.45", "linewidths": 0.7, "zorder": 0.5}
        ax.scatter(at[:, 0], at[:, 1], label=f"{len(at):,} sparse points", **style)
    ax.set(xlabel=f"component 1 ({share[0]:.0%} of the variance)", ylabel=f"component 2 ({share[1]:.0%} of the variance)")
    ax.set_title(f"{len(place):,} {'environments' if per == 'atom' else 'structures'}{f' of {symbol}' if symbol else ''}")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=3, borderaxespad=0.2)
    return ax


def _chosen(frames: list[Atoms]) -> np.ndarray:
    """Structures that are drawn, ascending: all, or a random part within `DRAWN` atoms."""
    order = np.random.default_rng(0).permutation(len(frames))
    n = int(np.searchsorted(np.cumsum([len(frames[s]) for s in order]), DRAWN, side="right"))
    return np.sort(order[: max(n, 1)])


def _descriptors(model, frames: list[Atoms], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, n_features) of the atoms, and (n,) the place in ``chosen`` of the structure of each."""
    some = [frames[s] for s in chosen]
    return np.asarray(model.process_.descriptors[0].create(some)), np.repeat(np.arange(len(some)), [len(atoms) for atoms in some])


def _kept(frames, chosen, per: str, symbol: str | None) -> np.ndarray:
    """(n_atoms,) bool, which of the atoms are drawn or averaged."""
    numbers = np.concatenate([frames[s].numbers for s in chosen])
    if symbol is None:
        return np.ones(len(numbers), dtype=bool)
    kept = numbers == atomic_numbers.get(symbol, -1)
    if per == "structure" or not kept.any():
        raise InputError(f"`symbol` must be an element of `frames`, of a map of atoms, received {symbol!r} and `per`={per!r}.")
    return kept


def _points(model, symbol: str | None) -> list[np.ndarray]:
    """Sparse points of the first term, by species; none of an exact process."""
    terms = getattr(model.process_, "terms", ())
    points = getattr(terms[0], "points", ()) if terms else ()
    names = terms[0].descriptor.kind_names if terms else ()
    return [p.get() if hasattr(p, "get") else p for name, p in zip(names, points, strict=False) if symbol in (None, name)]


def _components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, the two largest principal axes (n_features, 2) and their parts of the variance, from at most `ROWS` rows."""
    some = x if len(x) <= ROWS else x[np.random.default_rng(0).choice(len(x), ROWS, replace=False)]
    mean = some.mean(axis=0)
    _, size, axes = np.linalg.svd(some - mean, full_matrices=False)
    if len(size) < 2:
        raise InputError("a map needs at least two environments and two features.")
    return mean, axes[:2].T, size[:2] ** 2 / max(float((size**2).sum()), 1e-300)


def _values(frames, prediction: Prediction | None, colour: str, per: str, observations) -> list[np.ndarray]:
    """A value of each atom, or each structure, NaN where there is no label; one array for each structure."""
    if prediction is None:
        raise InputError(f"`colour`={colour!r} needs `prediction`: that of `frames`, with `uncertainty=True`.")
    checked_frames(frames, prediction, "forces")
    sizes = [len(atoms) for atoms in frames]
    if colour == "error":
        kind = "forces" if per == "atom" else "energy"
        found = labelled_comparison(frames, prediction, kind, observations)
        starts = np.cumsum([0, *(sizes if per == "atom" else [1] * len(frames))])
        squares, known = np.zeros(starts[-1]), np.zeros(starts[-1], dtype=bool)
        place = starts[found.structure] + (found.component // 3 if per == "atom" else 0)
        np.add.at(squares, place, found.errors**2)
        known[place] = True
        return np.split(np.where(known, np.sqrt(squares), np.nan), starts[1:-1])
    known = (
        getattr(prediction, "novelty", None) if colour == "novelty" else prediction.forces_std if per == "atom" else prediction.energy_std
    )
    if known is None:
        raise InputError(f"`prediction` has no {colour}: predict with `uncertainty=True` (novelty: by a calibrated model).")
    if colour == "novelty":
        return [n if per == "atom" else n.max() for n in known]
    return [np.linalg.norm(s, axis=1) if per == "atom" else KINDS["energy"][4] * s / n for s, n in zip(known, sizes, strict=True)]


def _label(colour: str, per: str) -> str:
    """Of the colour bar."""
    if colour == "novelty":
        return "novelty" if per == "atom" else "largest novelty"
    what = "force" if per == "atom" else "energy"
    return f"{what} {'|error|' if colour == 'error' else 'std'} ({'eV/Å' if per == 'atom' else 'meV/atom'})"


def _names(frames, chosen, per: str, kept: np.ndarray) -> list[str]:
    if per == "structure":
        return [frames[s].symbols.get_chemical_formula(empirical=True) for s in chosen]
    return [chemical_symbols[z] for z in np.concatenate([frames[s].numbers for s in chosen])[kept]]


def _by_name(ax, place: np.ndarray, names: list[str]) -> None:
    """Points of each name in a colour of its own; of many names the commonest have one."""
    of, common = np.array(names), sorted(set(names), key=names.count, reverse=True)
    for k, name in enumerate(common[: len(PALETTE)]):
        here = of == name
        ax.scatter(*place[here].T, s=_size(len(place)), linewidths=0, alpha=0.6, color=PALETTE[k], label=name, rasterized=len(place) > 3000)
    rest = ~np.isin(of, common[: len(PALETTE)])
    if rest.any():
        ax.scatter(*place[rest].T, s=_size(len(place)), linewidths=0, alpha=0.4, color="0.6", label="others")


def _by_value(ax, place: np.ndarray, values: np.ndarray, label: str) -> None:
    """Points coloured by a value, largest on top; the scale is logarithmic and leaves the ends of the values out."""
    known = np.isfinite(values) & (values > 0)
    order = np.flatnonzero(known)[np.argsort(values[known], kind="stable")]
    low, high = np.quantile(values[known], ENDS) if known.any() else (0.1, 1.0)
    low = max(low, high / DECADES)
    style = {"s": _size(len(place)), "linewidths": 0, "cmap": "viridis", "norm": "log", "rasterized": len(place) > 3000}
    drawn = ax.scatter(*place[order].T, c=np.clip(values[order], low, high), **style)
    bar = ax.figure.colorbar(drawn, ax=ax, label=label)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")


def _size(n: int) -> float:
    return 5.0 if n > 3000 else 12.0
