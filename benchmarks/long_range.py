"""What fixed charges give beyond the cutoff of a descriptor: molecular ions that move apart, and an ionic crystal.

    pip install "soapkrr[xtb]"
    python benchmarks/long_range.py FOLDER [--json long_range.json]

FOLDER holds charged_dimers.xyz (of the atomistic cookbook, after Grisafi et al. 2021, doi 10.1039/D0SC04934D) and kcl.xyz (of phonopy's
example KCl-SSCHA). Ions: fitted on pairs closer than 6 Å, tested on the others; cutoff and charges are chosen on pairs closer than 6 Å
alone, those from 5.2 Å on predicted by the others. Crystal: cutoff and factor of formal charges are chosen by a third of the training
structures. Test structures are predicted once, with what was chosen.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from soapkrr import SOAP, Coulomb, DotProduct, SparseGP
from soapkrr.baselines import ScaledBaseline
from soapkrr.electrostatics import electrostatics

HERE = Path(__file__).resolve().parent
ACETATE = 7


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


def chosen(candidates: dict, train, held, fit, by: str) -> tuple:
    """The candidate whose fit of ``train`` predicts ``held`` best, and all errors."""
    tried = {name: errors(fit(train, *candidate), held)[by] for name, candidate in candidates.items()}
    return min(tried, key=tried.__getitem__), tried


def compared(kinds: dict, parts: tuple, fit, by: str) -> dict:
    """{kind of model: choice, what it was chosen by, errors on the test structures}."""
    inner, held, train, test = parts
    rows = {}
    for kind, candidates in kinds.items():
        start = time.process_time()
        best, tried = chosen(candidates, inner, held, fit, by)
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
    parts = some(distance < 5.2), some((distance >= 5.2) & (distance < 6) & seen), some(distance < 6), some(distance >= 6)
    cutoffs = (2.5, 3.0, 4.0, 5.0)
    kinds = {
        "SOAP": {f"{r}": (r, []) for r in cutoffs},
        "SOAP + charges": {f"{r} {name}": (r, [Coulomb(name)]) for r, name in product(cutoffs, ("spread", "gfn2"))},
    }
    fit = lambda train, r_cut, means: fitted(train, ["C", "H", "N", "O"], r_cut, means, {"energy": 5e-4, "forces": 0.02})  # noqa: E731
    spread = rms([atoms.get_potential_energy() for atoms in parts[3]] - np.mean([atoms.get_potential_energy() for atoms in parts[3]]))
    return {
        "train": len(parts[2]),
        "test": len(parts[3]),
        "test_energy_spread_mev": spread,
        **compared(kinds, parts, fit, "energy_rmse_mev"),
    }


def crystal(folder: Path, n: int = 20) -> dict:
    frames = read(folder / "kcl.xyz", ":")
    order = np.random.default_rng(0).permutation(len(frames))
    train, test = [frames[i] for i in order[:n]], [frames[i] for i in order[n:]]
    third = len(train) // 3
    formal, cutoffs = Coulomb({"K": 1.0, "Cl": -1.0}), (4.0, 5.0, 6.0)
    kinds = {
        "SOAP": {f"{r}": (r, []) for r in cutoffs},
        "SOAP + charges": {f"{r} {c}": (r, [ScaledBaseline(formal, c)]) for r, c in product(cutoffs, (0.3, 0.54, 0.75, 1.0))},
    }
    fit = lambda train, r_cut, means: fitted(train, ["K", "Cl"], r_cut, means, {"energy": 5e-4, "forces": 0.02}, 200)  # noqa: E731
    return {
        "train": n,
        "test": len(test),
        **compared(kinds, (train[third:], train[:third], train, test), fit, "forces_rmse_mev_per_angstrom"),
    }


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
