"""gap_fit and QUIP's calculator on the same data with the same hyperparameters."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read, write


def measure(train: Path, test: list[Atoms], cell: Atoms, n_sparse: int, settings: dict, noise: dict, folder: Path) -> dict:
    """Seconds and peak memory of gap_fit; errors on the test set; µs per atom of its calculator on ``cell``."""
    from quippy.potential import Potential

    data, xml = folder / "peer.xyz", folder / "gap.xml"
    write(data, [_with_virial(atoms) for atoms in read(train, ":")], format="extxyz")
    start = time.perf_counter()
    memory, cpu = _timed([_executable(), *_arguments(data, xml, n_sparse, settings, noise)], folder)
    seconds = time.perf_counter() - start
    calculator = Potential("", param_filename=str(xml))
    times = []
    for step in range(4):
        atoms = cell.copy()
        atoms.rattle(1e-3, seed=step)
        atoms.calc = calculator
        start = time.perf_counter()
        atoms.get_forces(), atoms.get_stress()
        times.append(time.perf_counter() - start)
    return {
        "fit_seconds": seconds,
        "fit_cpu_seconds": cpu,
        "fit_peak_memory_mb": memory,
        "efs_us_per_atom": 1e6 * float(np.median(times[1:])) / len(cell),
        **_errors(test, calculator),
    }


def _executable() -> str:
    path = shutil.which("gap_fit") or str(Path(sys.executable).parent / "gap_fit")
    if not Path(path).exists():
        raise FileNotFoundError("gap_fit not found: pip install quippy-ase")
    return path


def _with_virial(atoms: Atoms) -> Atoms:
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    plain.info["dft_energy"] = atoms.get_potential_energy()
    plain.arrays["dft_forces"] = atoms.get_forces()
    if "stress" in atoms.calc.results:
        plain.info["dft_virial"] = -atoms.get_volume() * atoms.get_stress(voigt=False)
    return plain


def _arguments(data, xml, n_sparse, settings, noise) -> list[str]:
    soap = (
        f"soap l_max={settings['l_max']} n_max={settings['n_max']} atom_sigma={settings['sigma']} zeta=4 cutoff={settings['r_cut']} "
        f"cutoff_transition_width=1.5 n_sparse={n_sparse} delta=1.0 covariance_type=dot_product sparse_method=cur_points add_species=T"
    )
    # gap_fit takes the virial's noise in eV per structure; a 64-atom silicon cell has about 1280 Å³.
    return [
        f"at_file={data}",
        f"gap={{{soap}}}",
        f"default_sigma={{{noise['energy']} {noise['forces']} {noise['stress'] * 1280 / 64} 0.0}}",
        "energy_parameter_name=dft_energy",
        "force_parameter_name=dft_forces",
        "virial_parameter_name=dft_virial",
        "e0_method=average",
        "do_copy_at_file=F",
        "sparse_separate_file=F",
        f"gp_file={xml}",
    ]


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; peak resident memory (MB) and processor seconds of the children so far."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(folder / "peer.log", "w") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_maxrss / 1024, after.ru_utime - before.ru_utime


def _errors(test: list[Atoms], calculator) -> dict:
    energy, forces, stress = [], [], []
    for reference in test:
        atoms = Atoms(reference.numbers, reference.positions, cell=reference.cell, pbc=reference.pbc)
        atoms.calc = calculator
        energy.append((atoms.get_potential_energy() - reference.get_potential_energy()) / len(atoms))
        forces.append((atoms.get_forces() - reference.get_forces()).ravel())
        stress.append(atoms.get_stress() - reference.get_stress())
    return {
        "energy_mae_mev_per_atom": 1e3 * float(np.abs(energy).mean()),
        "forces_mae_ev_per_angstrom": float(np.abs(np.concatenate(forces)).mean()),
        "stress_mae_gpa": float(np.abs(stress).mean() / units.GPa),
    }
