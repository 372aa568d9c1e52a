"""Energies of atoms against what a chemist knows of their surroundings: coordination and electronegativity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list

from soapkrr.descriptors.elements import ELECTRONEGATIVITY
from soapkrr.errors import InputError
from soapkrr.metrics import check_lengths
from soapkrr.plot.axes import GREY, PALETTE, new_axes
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Two atoms are neighbours within so many times the sum of their covalent radii (Cordero et al. 2008, doi 10.1039/b801115j) ...
BOUND = 1.25

#: ... unless a third one is nearer than so many times their distance to both.
BEFORE = 0.9

#: The gauge in which energies are relative to the mean of their species.
MEAN = "mean"

#: Width of the figure, inches; largest spread of points with one coordination number.
WIDTH, SPREAD = 9.2, 0.22


def chemistry(frames: Atoms | list[Atoms], prediction: Prediction, gauge: str | Mapping[str, float] = MEAN, axes=None):
    """Energies of atoms against their coordination numbers, and against how much more electronegative their neighbours are; by species.

    .. warning:: Energies of atoms are a choice of gauge: a model learns energies of structures, and how it shares them among atoms follows
        from its reference energies, kernel and cutoff. Trends within one figure may mean something; values do not.

    Neighbours are atoms within 1.25 × the sum of covalent radii, but for those that a third one stands before: nearer than 0.9 × their
    distance to both, as the anion between two cations. Electronegativities are Pauling's, of neighbours their mean. Lines join means of
    each species and coordination number; r is Pearson's correlation of deviations from the means of the species.

    Parameters
    ----------
    frames : the structures that were predicted.
    prediction : of ``model.predict(frames)``.
    gauge : what energies are relative to, stated on the axis: ``"mean"`` of the species in these structures, or energies {symbol: eV}, such
        as ``model.reference_energies_``.
    axes : two matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    two matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, ``prediction`` is of other structures, ``gauge`` lacks a species, or an element beyond curium
        has no electronegativity.
    """
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    relative, what = _relative(numbers, np.concatenate(prediction.energies), gauge)
    coordination, difference = (np.concatenate(part) for part in zip(*map(_surroundings, frames), strict=True))
    known = np.isfinite(difference)
    left, right = _two_axes() if axes is None else axes
    shift = np.random.default_rng(0).uniform(-SPREAD, SPREAD, len(numbers))
    for k, z in enumerate(np.unique(numbers)):
        here, style = (
            numbers == z,
            {"s": 12, "alpha": 0.5, "linewidths": 0, "color": PALETTE[k % len(PALETTE)], "label": chemical_symbols[z]},
        )
        left.scatter((coordination + shift)[here], relative[here], **style)
        counts = np.unique(coordination[here])
        left.plot(
            counts,
            [relative[here & (coordination == n)].mean() for n in counts],
            "o-",
            color=PALETTE[k % len(PALETTE)],
            markeredgecolor="w",
        )
        right.scatter(difference[here & known], relative[here & known], **style)
    left.set(xlabel="Coordination number", ylabel=f"Energy of the atom (eV)\nrelative to {what}")
    right.set(xlabel="Electronegativity, neighbours' mean − own")
    left.set_title(_correlation(numbers, coordination, relative))
    right.set_title(_correlation(numbers[known], difference[known], relative[known]))
    for ax in (left, right):
        ax.axhline(0, color=GREY, linewidth=1, zorder=0)
    right.legend(frameon=False, markerscale=2)
    return left, right


def _relative(numbers: np.ndarray, energies: np.ndarray, gauge) -> tuple[np.ndarray, str]:
    """Energies in a gauge, and what it is."""
    species = np.unique(numbers)
    if isinstance(gauge, Mapping):
        missing = [chemical_symbols[z] for z in species if chemical_symbols[z] not in gauge]
        if missing:
            raise InputError(f"`gauge` must give an energy for every species, received none for {missing}.")
        table, what = {z: float(gauge[chemical_symbols[z]]) for z in species}, "given energies of its species"
    elif isinstance(gauge, str) and gauge == MEAN:
        table, what = {z: float(energies[numbers == z].mean()) for z in species}, "the mean of its species"
    else:
        raise InputError(f'`gauge` must be "mean" or energies {{symbol: eV}}, received {gauge!r}.')
    return energies - np.array([table[z] for z in numbers]), what


def _surroundings(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """(n_atoms,) numbers of neighbours, and their mean electronegativity less the atom's own (NaN of atoms without neighbours)."""
    unknown = sorted({chemical_symbols[z] for z in atoms.numbers if z >= len(ELECTRONEGATIVITY)})
    if unknown:
        raise InputError(f"`frames` have {unknown}, of which no electronegativity is known, expected elements up to Cm.")
    chi = ELECTRONEGATIVITY[atoms.numbers]
    i, j, D = neighbor_list("ijD", atoms, list(BOUND * covalent_radii[atoms.numbers]))
    seen = _seen(i, D)
    i, j = i[seen], j[seen]
    n = np.bincount(i, minlength=len(atoms))
    sums = np.bincount(i, chi[j], minlength=len(atoms))
    return n, np.where(n > 0, sums / np.maximum(n, 1) - chi, np.nan)


def _seen(i: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Which pairs, given by their centres and vectors (n_pairs, 3), have no third atom before them."""
    seen = np.ones(len(i), dtype=bool)
    for centre in np.unique(i):
        here = np.flatnonzero(i == centre)
        own = np.linalg.norm(D[here], axis=1)
        between = np.linalg.norm(D[here][:, None] - D[here], axis=2)
        seen[here] = ~((np.maximum(own, between) < BEFORE * own[:, None]) & ~np.eye(len(here), dtype=bool)).any(axis=1)
    return seen


def _correlation(numbers: np.ndarray, x: np.ndarray, y: np.ndarray) -> str:
    """``r = −0.53``, of deviations from the means of each species; of what does not vary, that it does not."""
    _, species = np.unique(numbers, return_inverse=True)
    n = np.bincount(species)
    x, y = (v - (np.bincount(species, v) / n)[species] for v in (x, y))
    # 1e-9: differences of one electronegativity with itself are rounding.
    if len(x) < 2 or np.ptp(x) < 1e-9 or np.ptp(y) == 0:
        return "no variation within species"
    return f"within species, r = {np.corrcoef(x, y)[0, 1]:.2f}".replace("-", "−")


def _two_axes():
    """Two axes with one scale of energies, beside each other."""
    left = new_axes(4.0)
    figure = left.figure
    left.remove()
    figure.set_size_inches(WIDTH, 4.0)
    return figure.subplots(1, 2, sharey=True)
