"""What fixed charges give beyond the cutoff of a descriptor: molecular ions that move apart, and an ionic crystal.

    pip install "soapkrr[xtb]"
    python benchmarks/long_range.py FOLDER [--json long_range.json]

FOLDER holds charged_dimers.xyz (of the atomistic cookbook, after Grisafi et al. 2021, doi 10.1039/D0SC04934D) and kcl.xyz (of phonopy's
example KCl-SSCHA). Ions: fitted on pairs closer than 6 Å, tested on the others; cutoff and charges are chosen on pairs closer than 6 Å
alone, those from 5.2 Å on predicted by the others. Crystal: cutoff and factor of formal charges are chosen by thirds of the training
structures, and the factor c says what the Born charges are, Z* = √(c ε∞). Test structures are predicted once, with what was chosen.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from soapkrr import SOAP, Coulomb, DotProduct, SparseGP
from soapkrr.baselines import ScaledBaseline
from soapkrr.electrostatics import electrostatics

HERE = Path(__file__).resolve().parent
ACETATE = 7
NOISE = {"energy": 5e-4, "forces": 0.02}
FORMAL = Coulomb({"K": 1.0, "Cl": -1.0})
#: Of phonopy's example: Born charge (e), high-frequency dielectric constant, edge of the cube (Å).
BORN, DIELECTRIC, LATTICE = 1.1289, 2.3646, 6.292


def ions(folder: Path) -> list:
    """Pairs in vacuum with energies less those of the molecules alone, and arrays ``molecule``, ``spread`` and ``gfn2``: charges."""
    from tblite.ase import TBLite

    frames, known = [], {}
    for atoms in read(folder / "charged_dimers.xyz", ":"):
        energy, forces = atoms.get_potential_energy() - atoms.info["energyA"] - atoms.info["energyB"], atoms.get_forces()
        atoms.pbc = False
        anion = np.arange(len(atoms)) < ACETATE if atoms.info["chargeA"] == -1 else np.arange(len(atoms)) >= len(atoms) - ACETATE
        charges = np.empty(len(atoms))
        for own, total in ((anion, -1), (~anion, 1)):
            molecule = atoms[own]
            molecule.info.clear()
            key = (str(molecule.symbols), *np.round(molecule.get_all_distances()[0], 3))
            if key not in known:
                molecule.calc = TBLite(method="GFN2-xTB", charge=total, verbosity=0)
                known[key] = molecule.get_charges()
            charges[own] = known[key] + (total - known[key].sum()) / own.sum()
        atoms.set_array("molecule", anion.astype(int))
        atoms.set_array("spread", np.where(anion, -1 / anion.sum(), 1 / (~anion).sum()))
        atoms.set_array("gfn2", charges)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def fitted(frames, species, r_cut: float, means: list, noise: dict, n_sparse: int = 300):
    """A sparse GP of SOAP on top of prior means."""
    references = [dict.fromkeys(species, 0.0)] if "C" in species else ["least-squares"]
    soap = SOAP(species, r_cut=r_cut, n_max=6, l_max=4)
    return SparseGP(soap, DotProduct(2), n_sparse=n_sparse, baseline=references + means, noise=noise, threads=1).fit(frames)


def errors(model, frames) -> dict:
    """Root mean square errors: energies (meV), forces (meV/Å), forces on whole molecules."""
    predicted = model.predict(frames)
    energies = predicted.energy - [atoms.get_potential_energy() for atoms in frames]
    forces = [mine - atoms.get_forces() for mine, atoms in zip(predicted.forces, frames, strict=True)]
    found = {"energy_rmse_mev": rms(energies), "forces_rmse_mev_per_angstrom": rms(np.concatenate(forces))}
    if "molecule" in frames[0].arrays:
        whole = [f[atoms.arrays["molecule"] == 1].sum(axis=0) for f, atoms in zip(forces, frames, strict=True)]
        found["molecule_forces_rmse_mev_per_angstrom"] = rms(np.array(whole))
    return found


def rms(values) -> float:
    return 1e3 * float(np.sqrt(np.mean(np.square(values))))


def chosen(candidates: dict, folds, fit, by: str) -> tuple:
    """The candidate whose fits of the first of each two lists predict the second best, and all errors."""
    tried = {name: float(np.mean([errors(fit(a, *candidate), b)[by] for a, b in folds])) for name, candidate in candidates.items()}
    return min(tried, key=tried.__getitem__), tried


def compared(kinds: dict, parts: tuple, fit, by: str) -> dict:
    """{kind of model: choice, what it was chosen by, errors on the test structures}."""
    folds, train, test = parts
    rows = {}
    for kind, candidates in kinds.items():
        start = time.process_time()
        best, tried = chosen(candidates, folds, fit, by)
        rows[kind] = {"chosen": best, "validation": tried, "test": errors(fit(train, *candidates[best]), test)}
        rows[kind]["processor_seconds"] = time.process_time() - start
        print(kind, json.dumps(rows[kind]), flush=True)
    return rows


def dimers(folder: Path) -> dict:
    frames = ions(folder)
    distance = np.array([atoms.info["distance"] for atoms in frames])
    # The molecule of two training pairs has none among the closer ones.
    seen = np.array(["C3N3" not in str(atoms.symbols) for atoms in frames])
    some = lambda mask: [atoms for atoms, taken in zip(frames, mask, strict=True) if taken]  # noqa: E731
    folds = [(some(distance < 5.2), some((distance >= 5.2) & (distance < 6) & seen))]
    parts = folds, some(distance < 6), some(distance >= 6)
    cutoffs = (2.5, 3.0, 4.0, 5.0)
    kinds = {
        "SOAP": {f"{r}": (r, []) for r in cutoffs},
        "SOAP + charges": {f"{r} {name}": (r, [Coulomb(name)]) for r, name in product(cutoffs, ("spread", "gfn2"))},
    }
    fit = lambda train, r_cut, means: fitted(train, ["C", "H", "N", "O"], r_cut, means, NOISE)  # noqa: E731
    energies = np.array([atoms.get_potential_energy() for atoms in parts[2]])
    rows = compared(kinds, parts, fit, "energy_rmse_mev")
    return {"train": len(parts[1]), "test": len(parts[2]), "test_energy_spread_mev": rms(energies - energies.mean()), **rows}


def crystal(folder: Path, n: int = 20) -> dict:
    frames = read(folder / "kcl.xyz", ":")
    order = np.random.default_rng(0).permutation(len(frames))
    train, test = [frames[i] for i in order[:n]], [frames[i] for i in order[n:]]
    factors = np.round(np.arange(0.40, 0.71, 0.02), 2).tolist()
    kinds = {
        "SOAP": {f"{r}": (r, []) for r in (4.0, 5.0, 6.0, 7.0)},
        "SOAP + charges": {f"{r} {c}": (r, [ScaledBaseline(FORMAL, c)]) for r, c in product((4.0, 5.0), factors)},
    }
    fit = lambda train, r_cut, means: fitted(train, ["K", "Cl"], r_cut, means, NOISE, 200)  # noqa: E731
    folds = [([t for k, t in enumerate(train) if k % 3 != j], train[j::3]) for j in range(3)]
    rows = compared(kinds, (folds, train, test), fit, "forces_rmse_mev_per_angstrom")
    r_cut, factor = map(float, rows["SOAP + charges"]["chosen"].split())
    model = fit(train, r_cut, [ScaledBaseline(FORMAL, factor)])
    born = {"learnt": float(np.sqrt(factor * DIELECTRIC)), "reference": BORN}
    optical = {name: gamma(model, charge) for name, charge in born.items()}
    found = {"train": n, "test": len(test), "born_charges": born, "optical_thz": optical, **rows}
    print({name: found[name] for name in ("born_charges", "optical_thz")}, flush=True)
    return found


def gamma(model, born: float) -> dict:
    """Transverse and longitudinal optical frequencies (THz) at Γ of the model's force constants with Born charges ±born, by phonopy."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    a = LATTICE / 2
    cell = PhonopyAtoms(["K", "Cl"], scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[[0, a, a], [a, 0, a], [a, a, 0]])
    conventional = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    phonons = Phonopy(cell, supercell_matrix=2 * conventional, primitive_matrix=np.eye(3))
    phonons.generate_displacements(distance=0.03)
    displaced = [Atoms(c.symbols, c.positions, cell=c.cell, pbc=True) for c in phonons.supercells_with_displacements]
    phonons.forces = np.array(model.predict(displaced).forces)
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants()
    charges = np.array([born * np.eye(3), -born * np.eye(3)])
    phonons.nac_params = {"born": charges, "dielectric": DIELECTRIC * np.eye(3), "factor": 14.3996454784}
    phonons.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 0])
    frequencies = np.sort(phonons.qpoints.frequencies[0])
    return {"transverse": float(frequencies[3]), "longitudinal": float(frequencies[5])}


def speed(folder: Path) -> dict:
    """Microseconds for each of some 10,000 ions: energy, forces, potentials and strain derivative."""
    atoms = read(folder / "kcl.xyz", 0).repeat((5, 5, 6))
    charges, rows = np.where(atoms.numbers == 19, 1.0, -1.0), {"ions": len(atoms)}
    for accuracy in (1e-6, 1e-8):
        taken = []
        for _ in range(3):
            start = time.process_time()
            electrostatics(atoms.positions, charges, atoms.cell.array, True, accuracy=accuracy)
            taken.append(1e6 * (time.process_time() - start) / len(atoms))
        rows[f"microseconds_per_ion_{accuracy:g}"] = min(taken)
    print(rows, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "long_range.json")
    given = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = {"speed": speed(given.folder), "dimers": dimers(given.folder), "kcl": crystal(given.folder)}
    given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
