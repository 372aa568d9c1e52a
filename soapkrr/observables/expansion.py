"""Thermal expansion in the quasi-harmonic approximation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError
from soapkrr.observables.eos import fit, response
from soapkrr.observables.force_constants import ZERO, Displacements, ForceConstants, by_square, helmholtz, linearised, need_phonopy
from soapkrr.observables.geometry import Equilibrium, at_rest
from soapkrr.observables.number import DELTA, Entry, Number, Result, bars_of, numbers_of
from soapkrr.observables.source import as_source, shifted
from soapkrr.observables.vibrations import THZ
from soapkrr.uncertainty import Observable

#: Step of derivatives by the temperature, K.
STEP = 5.0

#: The equation of state that free energies are fitted to.
FORM = "birch-murnaghan"


@dataclass(frozen=True, eq=False, repr=False)
class Expansion(Result):
    """Volume ``"V(300 K)"``, Å³/atom, and linear coefficient ``"alpha(300 K)"``, 10⁻⁶/K, at each temperature.

    Attributes
    ----------
    numbers : {name: `Number`}.  temperatures, volume, volume_std : (n,) K, Å³/atom; std None of a calculator.
    """

    numbers: Mapping[str, Number]
    temperatures: np.ndarray
    volume: np.ndarray
    volume_std: np.ndarray | None

    def plot(self, ax=None):
        """Volume by temperature; see `Result.plot`."""
        from soapkrr.plot.observables import curve

        labels = {"xlabel": "temperature (K)", "ylabel": "volume (Å³/atom)"}
        return curve(self.temperatures, self.volume, self.volume_std, points=True, ax=ax, **labels)


def expansion(
    model, atoms: Atoms, temperatures: Sequence[float], supercell=(3, 3, 3), *, strain: float = 0.05, n: int = 7, mesh=(8, 8, 8)
) -> Expansion:
    """Volume that makes the free energy E(V) + F_vib(V, T) least, and its derivative by the temperature.

    F_vib is harmonic, from phonons at each of ``n`` volumes. Bars by the delta method from the joint posterior of all energies and forces:
    through the phonons, and the normal equations of the fit of an equation of state at each temperature.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    atoms : a primitive cell; its shape is kept.  temperatures : K.
    supercell : as in `phonons`.  strain, n : volumes, as in `equation_of_state`.  mesh : of wave vectors.

    Raises
    ------
    InputError : phonopy is not installed, a frequency is imaginary at a volume, or the free energy has no minimum among the volumes.
    """
    source, T = as_source(model), np.atleast_1d(np.asarray(temperatures, dtype=float))
    need_phonopy()
    if (T < 0).any() or n < 5:
        raise InputError(f"`temperatures` must not be negative and `n` be at least 5, received {temperatures!r} and {n}.")
    grid = np.concatenate([T, T + STEP, np.maximum(T - STEP, 0.0)])
    start, frames = at_rest(source, atoms, cell=True).atoms, []
    for scale in np.linspace(1 - strain, 1 + strain, n):
        moved = Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
        moved.set_cell(start.cell.array * scale ** (1 / 3), scale_atoms=True)
        frames.append(at_rest(source, moved, cell=False))
    vibrations = [_free_energy(rest, grid, supercell, mesh) for rest in frames]
    points = source.predict([rest.atoms for rest in frames])
    V, size = np.array([rest.atoms.get_volume() for rest in frames]) / len(start), len(start)
    F = (points.energy[:, None] + np.array([f for f, _ in vibrations])) / size
    volume, moves = np.empty(len(grid)), []
    for t in range(len(grid)):
        p = fit(V, F[:, t], FORM)
        volume[t] = p[3]
        if not V.min() < p[3] < V.max():
            raise InputError(
                f"the free energy at {grid[t]:g} K has no minimum between {V.min():.4g} and {V.max():.4g} Å³/atom; widen `strain`."
            )
        if not source.certain:
            J = response(V, F[:, t], p, FORM)[3] / size
            moves.append(shifted(points.observables([0.0], energy=J[None])[0], J, [linear[t] for _, linear in vibrations]))
    entries = _entries(T, volume, moves)
    std = None if source.certain else np.sqrt(np.diagonal(bars_of(source, moves[: len(T)])[0]))
    return Expansion(numbers_of(source, entries, DELTA), T, volume[: len(T)], std)


def _free_energy(rest: Equilibrium, grid: np.ndarray, supercell, mesh) -> tuple[np.ndarray, list[Observable]]:
    """Vibrational free energies at the temperatures, eV per cell, and their linearisations of mean 0."""
    constants = ForceConstants(rest.source, rest.atoms, Displacements(supercell))
    constants.phonon.run_mesh(list(mesh), is_gamma_center=True)
    q, w = np.array(constants.phonon.mesh.qpoints), np.array(constants.phonon.mesh.weights, dtype=float)
    values, vectors = constants.modes(q)
    if values.min() < -((ZERO / THZ) ** 2):
        raise InputError(
            f"a phonon of {rest.atoms.symbols} is imaginary at {rest.atoms.get_volume() / len(rest.atoms):.4g} Å³/atom: the quasi-harmonic "
            "approximation ends there; take a smaller `strain`, or look at `phonons`."
        )
    F, by_f = helmholtz(values, w / w.sum(), grid)
    if rest.source.certain:
        return F, []
    return F, linearised(rest, constants, [], q, (values, vectors), by_f * by_square(values))


def _entries(T: np.ndarray, volume: np.ndarray, moves: list[Observable]) -> list[Entry]:
    """Volumes and coefficients; α = dV/dT/3V."""
    m, entries = len(T), []
    for t, temperature in enumerate(T):
        V, up, down = volume[t], volume[m + t], volume[2 * m + t]
        scale = 1e6 / (3 * V * (STEP + min(STEP, temperature)))
        alpha = scale * (up - down)
        three = [moves[t], moves[m + t], moves[2 * m + t]] if moves else []
        weights = [-alpha / V, scale, -scale] if moves else []
        entries.append(
            Entry(f"V({temperature:g} K)", float(V), "Å³/atom", shifted(Observable((), float(V)), [1.0] * bool(moves), three[:1]))
        )
        entries.append(Entry(f"alpha({temperature:g} K)", float(alpha), "10⁻⁶/K", shifted(Observable((), float(alpha)), weights, three)))
    return entries
