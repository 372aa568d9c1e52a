"""Energy-volume curves of several phases, and the pressures at which they cross."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase import Atoms, units
from scipy.optimize import brentq

from soapkrr.errors import InputError
from soapkrr.observables.eos import FORMS, EquationOfState, curve, response
from soapkrr.observables.geometry import at_rest
from soapkrr.observables.number import DELTA, Entry, Number, Result, numbers_of
from soapkrr.observables.source import as_source, shifted
from soapkrr.uncertainty import Observable

#: Volumes among which a pressure is sought, in units of V0.
LOW, HIGH = 0.5, 1.4

#: Pressures at which enthalpies are compared before the crossing nearest to zero is sought.
SCAN = 80


@dataclass(frozen=True, eq=False, repr=False)
class Phases(Result):
    """Pressures ``"A-B"`` at which two phases have the same enthalpy, GPa: −1 times the slope of their common tangent.

    Attributes
    ----------
    numbers : {name: `Number`}, of pairs that cross within the volumes of their curves.  equations : {phase: `EquationOfState`}.
    volumes : {"A-B": (V_A, V_B)} of the coexisting phases, Å³/atom.
    """

    numbers: Mapping[str, Number]
    equations: Mapping[str, EquationOfState]
    volumes: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        return super().__str__() or f"no two of {', '.join(self.equations)} coexist within the range of their curves"

    def plot(self, ax=None):
        """The curves, with the common tangents; see `Result.plot`."""
        from soapkrr.plot.observables import energy_volume

        tangents = []
        for pair, (first, second) in self.volumes.items():
            A, B = _names(pair, self.equations)
            tangents.append(((first, float(self.equations[A](first))), (second, float(self.equations[B](second)))))
        return energy_volume(self.equations, ax, tangents)


def _names(pair: str, equations: Mapping[str, EquationOfState]) -> tuple[str, str]:
    return next((a, b) for a, b in combinations(equations, 2) if f"{a}-{b}" == pair)


def phases(
    model, structures: Mapping[str, Atoms], form: str = "birch-murnaghan", *, strain: float = 0.12, n: int = 13, relax: bool = True
) -> Phases:
    """Equations of state of phases, and the pressures at which pairs of them coexist: equal slope −p and equal enthalpy E + pV.

    dp = (dE_A − dE_B)/(V_B − V_A) at fixed volumes (Clausius and Clapeyron): the delta method, from the joint posterior of all energies of
    both phases.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    structures : {name: crystal} of at least two phases of one composition.
    form, strain, n : as in `equation_of_state`.  relax : cells relax first, each at zero pressure, where they keep their symmetry.

    Raises
    ------
    InputError : fewer than two phases, or their compositions differ.
    """
    source = as_source(model)
    if len(structures) < 2:
        raise InputError(f"`structures` must be at least two phases by name, received {list(structures)}.")
    parts = {name: {s: float(np.mean(np.array(a.get_chemical_symbols()) == s)) for s in set(a.get_chemical_symbols())} for name, a in
             structures.items()}  # fmt: skip
    first = next(iter(parts.values()))
    for name, part in parts.items():
        if part.keys() != first.keys() or any(abs(part[s] - first[s]) > 1e-9 for s in first):
            raise InputError(f"`structures`: {name!r} has another composition than {next(iter(parts))!r}; enthalpies cannot be compared.")
    scales = np.linspace(1 - strain, 1 + strain, n)
    equations = {
        name: curve(source, at_rest(source, atoms, cell=True).atoms if relax else atoms, scales, form) for name, atoms in structures.items()
    }
    entries, volumes = [], {}
    for a, b in combinations(equations, 2):
        found = crossing(equations[a], equations[b])
        if found is None:
            continue
        pressure, V = found
        by_energies = [_at_volume(equations[name], v) for name, v in zip((a, b), V, strict=True)]
        scale = 1 / (V[1] - V[0]) / units.GPa
        linear = shifted(Observable((), pressure), [scale, -scale], by_energies)
        entries.append(Entry(f"{a}-{b}", pressure, "GPa", linear))
        volumes[f"{a}-{b}"] = V
    return Phases(numbers_of(source, entries, DELTA) if entries else {}, equations, volumes)


def _at_volume(eos: EquationOfState, V: float) -> Observable:
    """Change of the fitted energy per atom at a volume, of mean 0."""
    if eos.points.source.certain:
        return Observable()
    steps = 1e-4 * np.abs(eos.parameters)
    by_parameters = np.array([(_form(eos, V, h) - _form(eos, V, -h)) / (2 * h[k]) for k, h in enumerate(np.diag(steps))])
    J = by_parameters @ response(eos.volume, eos.energy, eos.parameters, eos.form) / len(eos.points.frames[0])
    return eos.points.observables([0.0], energy=J[None])[0]


def _form(eos: EquationOfState, V: float, change: np.ndarray) -> float:
    return float(FORMS[eos.form](V, *(eos.parameters + change)))


def crossing(a: EquationOfState, b: EquationOfState) -> tuple[float, tuple[float, float]] | None:
    """Pressure nearest to zero, GPa, and volumes at which enthalpies are equal; None where there is none in the range of both curves."""
    low = max(a.pressure(a.volume.max()), b.pressure(b.volume.max()))
    high = min(a.pressure(a.volume.min()), b.pressure(b.volume.min()))

    def gap(pressure: float) -> float:
        return _enthalpy(a, pressure) - _enthalpy(b, pressure)

    if not low < high:
        return None
    grid = np.linspace(low, high, SCAN)
    gaps = np.array([gap(pressure) for pressure in grid])
    changes = np.flatnonzero(gaps[:-1] * gaps[1:] < 0)
    if not len(changes):
        return None
    k = changes[np.argmin(np.abs(grid[changes]))]
    pressure = float(brentq(gap, grid[k], grid[k + 1], xtol=1e-10))
    return pressure, (_volume(a, pressure), _volume(b, pressure))


def _volume(eos: EquationOfState, pressure: float) -> float:
    V0 = eos.parameters[3]
    return float(brentq(lambda V: eos.pressure(V) - pressure, LOW * V0, HIGH * V0, xtol=1e-12))


def _enthalpy(eos: EquationOfState, pressure: float) -> float:
    V = _volume(eos, pressure)
    return float(eos(V)) + pressure * units.GPa * V
