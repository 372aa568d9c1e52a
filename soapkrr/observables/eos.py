"""Energy against volume: equations of state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.eos import birchmurnaghan, murnaghan, pouriertarantola, vinet
from scipy.optimize import least_squares

from soapkrr.errors import InputError
from soapkrr.observables.geometry import at_rest
from soapkrr.observables.number import DELTA, Entry, Number, Result, bars_of, numbers_of
from soapkrr.observables.source import Points, Source, as_source

#: {name: E(V, E0, B0, B0′, V0)}.
FORMS: dict[str, Callable] = {
    "birch-murnaghan": birchmurnaghan,
    "murnaghan": murnaghan,
    "poirier-tarantola": pouriertarantola,
    "vinet": vinet,
}

#: Relative steps of numerical derivatives of a form by its parameters.
STEP = 1e-4


@dataclass(frozen=True, eq=False, repr=False)
class EquationOfState(Result):
    """``E0`` (eV/atom), ``V0`` (Å³/atom), ``B0`` (GPa) and ``B0_prime`` of an energy-volume curve.

    Attributes
    ----------
    numbers : {name: `Number`}.  form : name of the equation.  parameters : (4,) E0, B0 (eV/Å³), B0′, V0 per atom.
    volume, energy, energy_std : (n,) Å³/atom, eV/atom; energy_std is None of a calculator.  points : the structures and their energies.
    """

    numbers: Mapping[str, Number]
    form: str
    parameters: np.ndarray
    volume: np.ndarray
    energy: np.ndarray
    energy_std: np.ndarray | None
    points: Points

    def __call__(self, volume):
        """Energy, eV/atom, at a volume, Å³/atom."""
        return FORMS[self.form](np.asarray(volume), *self.parameters)

    def pressure(self, volume):
        """−dE/dV, GPa."""
        V = np.asarray(volume, dtype=float)
        h = STEP * V
        return -(self(V + h) - self(V - h)) / (2 * h) / units.GPa

    def plot(self, ax=None):
        """Energies with their bars, and the curve; see `Result.plot`."""
        from soapkrr.plot.observables import energy_volume

        return energy_volume({self.form: self}, ax)


def equation_of_state(
    model, atoms: Atoms, form: str = "birch-murnaghan", *, strain: float = 0.06, n: int = 11, relax: bool = True
) -> EquationOfState:
    """Fit an equation of state to energies of a crystal that is compressed and stretched.

    By least squares in E of the form, E(V) = E0 + f(V; V0, B0, B0′), Birch's by default (1947, doi 10.1103/PhysRev.71.809). At each volume
    the atoms are at rest (their energy is then, to first order, that of the fixed structure: the envelope theorem); the cell keeps its
    shape. Bars follow by the delta method from the joint posterior of all energies, through the normal equations of the fit.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    atoms : a crystal near its equilibrium.
    form : ``"birch-murnaghan"``, ``"murnaghan"``, ``"poirier-tarantola"`` or ``"vinet"``.
    strain : volumes go from (1 − strain) to (1 + strain) times that of the crystal at rest.  n : number of volumes, at least 5.
    relax : relax cell and atoms first; False: volumes go about that of ``atoms`` as they are.

    Raises
    ------
    InputError : the curve has no minimum among the volumes, or a parameter is out of range.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> eos = equation_of_state(EMT(), bulk("Cu"))
    >>> eos["V0"]
    V0 = 11.5654 Å³/atom
    """
    source = as_source(model)
    if form not in FORMS:
        raise InputError(f"`form` must be one of {sorted(FORMS)}, received {form!r}.")
    if not (n >= 5 and 0 < strain < 0.5):
        raise InputError(f"`n` must be at least 5 and `strain` between 0 and 0.5, received {n!r} and {strain!r}.")
    start = at_rest(source, atoms, cell=True).atoms if relax else atoms
    return curve(source, start, np.linspace(1 - strain, 1 + strain, n), form)


def curve(source: Source, atoms: Atoms, scales: Sequence[float], form: str) -> EquationOfState:
    """The equation of state by energies at these multiples of the volume of ``atoms``."""
    frames = []
    for scale in scales:
        scaled = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        scaled.set_cell(atoms.cell.array * scale ** (1 / 3), scale_atoms=True)
        frames.append(at_rest(source, scaled, cell=False).atoms)
    return fitted(source.predict(frames), form)


def fitted(points: Points, form: str) -> EquationOfState:
    """The equation of state of one crystal at several volumes."""
    source, atoms = points.source, len(points.frames[0])
    V = np.array([a.get_volume() for a in points.frames]) / atoms
    E = points.energy / atoms
    p = fit(V, E, form)
    if not V.min() < p[3] < V.max():
        raise InputError(
            f"the energy of {points.frames[0].symbols} has no minimum between {V.min():.4g} and {V.max():.4g} Å³/atom (the fit puts it at "
            f"{p[3]:.4g}): start nearer to equilibrium, or widen `strain`."
        )
    J = response(V, E, p, form) / atoms
    factors = {"E0": (0, 1.0, "eV/atom"), "V0": (3, 1.0, "Å³/atom"), "B0": (1, 1 / units.GPa, "GPa"), "B0_prime": (2, 1.0, "")}
    linear = {
        name: points.observables([factor * p[k]], energy=factor * J[k][None])[0] for name, (k, factor, _) in factors.items()
    }  # fmt: skip
    entries = [Entry(name, float(factor * p[k]), unit, linear[name]) for name, (k, factor, unit) in factors.items()]
    std = None if source.certain else _std(source, points, atoms)
    return EquationOfState(numbers_of(source, entries, DELTA), form, p, V, E, std, points)


def _std(source: Source, points: Points, atoms: int) -> np.ndarray:
    C, _, _ = bars_of(source, points.observables(points.energy / atoms, energy=np.eye(len(points.frames)) / atoms))
    return np.sqrt(np.maximum(np.diagonal(C), 0.0))


def fit(V: np.ndarray, E: np.ndarray, form: str) -> np.ndarray:
    """(4,) E0, B0, B0′ and V0 of least squares."""
    c = np.polynomial.Polynomial.fit(V, E, 3).convert().coef
    start = V[np.argmin(E)]
    curvature = 2 * c[2] + 6 * c[3] * start
    p = np.array([E.min(), max(curvature * start, 1e-3), 4.0, start])
    scale = np.array([max(np.ptp(E), 1e-9), p[1], 1.0, start])
    found = least_squares(
        lambda x: (FORMS[form](V, *(p + x * scale)) - E) / scale[0], np.zeros(4), jac="3-point", xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    return p + found.x * scale


def response(V: np.ndarray, E: np.ndarray, p: np.ndarray, form: str) -> np.ndarray:
    """(4, n) derivatives of the parameters of least squares by the energies: (JᵀJ + Σ r ∂²f)⁻¹ Jᵀ, of the equations that define them."""
    steps = STEP * np.where(np.abs(p) > 1e-3, np.abs(p), 1.0) * np.array([1.0, 10.0, 10.0, 1.0])

    def slope(at: np.ndarray) -> np.ndarray:
        return np.array([(FORMS[form](V, *(at + h)) - FORMS[form](V, *(at - h))) / (2 * h[k]) for k, h in enumerate(np.diag(steps))])

    J, r = slope(p), FORMS[form](V, *p) - E
    second = np.array([(slope(p + h) - slope(p - h)) @ r / (2 * h[k]) for k, h in enumerate(np.diag(steps))])
    return np.linalg.solve(J @ J.T + 0.5 * (second + second.T), J)
