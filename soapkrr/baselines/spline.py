"""Tabulated repulsion of cores, as published potentials are written on top of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from scipy.interpolate import CubicSpline

from soapkrr.baselines.base import Baseline
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.structures import Batch, Mean, forces_and_strain


@dataclass(frozen=True)
class PairSpline(Baseline):
    """Pair energies E = ½ Σ_ij s(r_ij) of cubic splines s, zero from their last point on, straight before their first.

    Parameters
    ----------
    curves : ("A-B", distances Å, energies eV, (slope at the first, at the last point), eV/Å; None: of no curvature) of pairs of elements.

    Raises
    ------
    InputError : a name is not a pair of elements, a pair is given twice, or points do not ascend.

    Examples
    --------
    >>> from ase import Atoms
    >>> core = PairSpline([("Si-Si", (1.0, 1.5, 2.0), (8.0, 1.0, 0.0), (-30.0, 0.0))])
    >>> float(core.evaluate(Batch.from_atoms([Atoms("Si2", [[0, 0, 0], [0, 0, 1.5]])])).energies.sum())
    1.0
    """

    curves: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[float | None]]]

    def __post_init__(self):
        curves = tuple((name, tuple(map(float, r)), tuple(map(float, e)), tuple(slopes)) for name, r, e, slopes in self.curves)
        object.__setattr__(self, "curves", curves)
        seen = set()
        for name, r, energies, slopes in curves:
            pair = tuple(sorted(str(name).split("-")))
            if len(pair) != 2 or not set(pair) <= set(atomic_numbers) or pair in seen:
                raise InputError(f"`curves` names {name!r}, expected two elements as in 'Si-O', each pair once.")
            if len(r) < 2 or len(r) != len(energies) or not np.isfinite([*r, *energies]).all() or not (np.diff(r) > 0).all() or r[0] < 0:
                raise InputError(f"`curves` of {name}: expected ascending distances and as many energies, finite numbers.")
            if len(slopes) != 2:
                raise InputError(f"`curves` of {name}: expected two slopes, received {slopes!r}.")
            seen.add(pair)

    @cached_property
    def _splines(self) -> list[tuple[tuple[int, int], CubicSpline]]:
        """Atomic numbers and spline of each pair."""
        found = []
        for name, r, energies, slopes in self.curves:
            ends = tuple((2, 0.0) if slope is None else (1, slope) for slope in slopes)
            a, b = (atomic_numbers[symbol] for symbol in name.split("-"))
            found.append(((a, b), CubicSpline(r, energies, bc_type=ends)))
        return found

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`."""
        pairs = batch.close_pairs(max(spline.x[-1] for _, spline in self._splines))
        z, r = np.sort([batch.numbers[pairs.i], batch.numbers[pairs.j]], axis=0), np.linalg.norm(pairs.vectors, axis=1)
        value, slope = np.zeros(len(r)), np.zeros(len(r))
        for numbers, spline in self._splines:
            here = (z[0] == min(numbers)) & (z[1] == max(numbers)) & (r < spline.x[-1])
            inside = np.maximum(r[here], spline.x[0])
            slope[here] = spline(inside, 1)
            value[here] = spline(inside) + slope[here] * (r[here] - inside)
        energies = 0.5 * np.bincount(pairs.i, value, minlength=batch.n_atoms)
        return Mean(energies, *forces_and_strain(batch, pairs, (0.5 * slope / r)[:, None] * pairs.vectors))
