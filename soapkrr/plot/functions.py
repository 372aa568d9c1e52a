"""Functions of one distance: radial functions and cutoff of a descriptor, and pairs of atoms by a model."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from soapkrr.descriptors.radial import dressed_basis
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.plot.axes import GREY, PALETTE, new_axes

#: Points of a curve; functions drawn.
POINTS, FUNCTIONS = 400, 6


def radial(descriptor, l: int = 0, n: int = FUNCTIONS, ax=None):
    """Radial functions of a SOAP's density expansion for one angular momentum, in units of the largest, and what they are multiplied with.

    Drawn is w(r) R_nl(r) with w the cutoff function times `RadialScaling`, which is the dashed line. Where all are small, neighbours say
    little.

    Parameters
    ----------
    descriptor : a `SOAP`, what is made of one (`Compressed`, ...), or a fitted model of one term.
    l : angular momentum.  n : functions at most.  ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, there is no SOAP in ``descriptor``, or ``l`` is above its ``l_max``.
    """
    soap = _soap(descriptor)
    if isinstance(l, bool) or not isinstance(l, (int, np.integer)) or not 0 <= l <= soap.l_max:
        raise InputError(f"`l` must be an integer from 0 to l_max = {soap.l_max}, received {l!r}.")
    r = np.linspace(0.0, soap.r_cut, POINTS)
    cutoff = soap.cutoff(r, soap.r_cut)[0]
    weight = cutoff if soap.scaling is None else cutoff * soap.scaling(r)[0]
    bare = dressed_basis(soap.rbf, [], soap.r_cut, soap.n_max, soap.l_max, soap.sigma)(r)[0][:, l]
    functions = weight[:, None] * bare * r[:, None] ** l
    largest = float(np.abs(functions).max()) or 1.0
    ax = new_axes(3.4) if ax is None else ax
    ax.axhline(0, color=GREY, linewidth=1, zorder=0)
    shown = min(n, soap.n_max)
    for k in range(shown):
        ax.plot(r, functions[:, k] / largest, color=PALETTE[k % len(PALETTE)], linewidth=1.4, label=f"n = {k}")
    ax.plot(r, weight / weight.max(), "--", color="k", linewidth=1.2, label="weight" if soap.scaling else "cutoff")
    left = "" if shown == soap.n_max else f", {shown} of {soap.n_max}"
    ax.set(xlabel="distance (Å)", ylabel="w(r) R(r), relative", title=f"Radial functions, l = {l}{left}", xlim=(0, soap.r_cut))
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _soap(descriptor) -> SOAP:
    """The SOAP inside."""
    inside = getattr(descriptor, "process_", None)
    found = inside.descriptors[0] if inside is not None else descriptor
    while not isinstance(found, SOAP) and hasattr(found, "descriptor"):
        found = found.descriptor
    if not isinstance(found, SOAP):
        raise InputError(f"`descriptor` must be a SOAP or hold one: radial functions are its own, received {type(descriptor).__name__}.")
    return found


def dimers(model, symbols=None, r=None, ax=None):
    """Energies of pairs of atoms less those of free ones against their distance, with a band of one standard deviation.

    Of each pair of species a curve; its solid part is of distances that the training data have (``domain_``), the dotted part below
    extrapolates.

    Parameters
    ----------
    model : a fitted potential.  symbols : pairs of chemical symbols, ``[("Si", "O")]``; None: all.
    r : distances, Å; None: from 0.6 of the shortest in the data to a little beyond the cutoff.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, or the model does not know a species.
    """
    species = sorted(model.reference_energies_)
    pairs = list(combinations_with_replacement(species, 2)) if symbols is None else [tuple(pair) for pair in symbols]
    farthest = max(d.r_cut for d in model.process_.descriptors)
    shortest = [_shortest(model, pair) for pair in pairs]
    r = np.linspace(0.6 * min(min(shortest), farthest), 1.03 * farthest, 160) if r is None else np.asarray(r, dtype=float)
    ax, scale = new_axes(3.8) if ax is None else ax, []
    for k, (pair, known) in enumerate(zip(pairs, shortest, strict=True)):
        p = model.predict([Atoms(list(pair), [[0, 0, 0], [x, 0, 0]]) for x in r], uncertainty="energy")
        alone = model.predict([Atoms([symbol]) for symbol in pair]).energy.sum()
        energy, colour = p.energy - alone, PALETTE[k % len(PALETTE)]
        inside = r >= known
        ax.fill_between(r, energy - p.energy_std, energy + p.energy_std, color=colour, alpha=0.12, linewidth=0)
        for edge in (energy - p.energy_std, energy + p.energy_std):
            ax.plot(r, edge, color=colour, linewidth=0.6, alpha=0.7)
        ax.plot(r[inside], energy[inside], color=colour, linewidth=1.8, label="–".join(pair))
        ax.plot(r[r < known + np.diff(r).max()], energy[r < known + np.diff(r).max()], ":", color=colour, linewidth=1.8)
        ax.axvline(known, color=colour, linewidth=0.8, alpha=0.6)
        scale.append(_scale(energy[inside], p.energy_std[inside]))
    ax.axhline(0, color=GREY, linewidth=1, zorder=0)
    low, high = min(s[0] for s in scale), max(s[1] for s in scale)
    ax.set(xlabel="distance (Å)", ylabel="energy less free atoms (eV)", title="Pairs of atoms, ± 1 std", xlim=(r[0], r[-1]))
    ax.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    ax.legend(frameon=False, fontsize=9, loc="upper right", ncols=1 + len(pairs) // 7)
    ax.text(0.97, 0.03, "dotted: closer than in the data", transform=ax.transAxes, ha="right", fontsize=9, color="0.4")
    return ax


def _shortest(model, pair: tuple[str, str]) -> float:
    """Shortest distance of two species in the training data, Å; half the cutoff where it is not known."""
    domain = getattr(model, "domain_", None)
    shortest = {} if domain is None else domain.shortest
    first, second = pair
    return shortest.get(f"{first}-{second}", shortest.get(f"{second}-{first}", 0.5 * max(d.r_cut for d in model.process_.descriptors)))


def _scale(energy: np.ndarray, std: np.ndarray) -> tuple[float, float]:
    """Limits that hold the curve and most of its band."""
    if not len(energy):
        return -1.0, 1.0
    half = np.minimum(std, 3 * np.ptp(energy) + 0.1)
    return float((energy - half).min()), float((energy + half).max())
