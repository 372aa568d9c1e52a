"""Make the silicon PBE data set: generate structures, label them with GPAW, write train.xyz and test.xyz.

    python make.py                  do everything; finished structures are kept in cache/, so it can be stopped and restarted
    python make.py --structures     only generate the structures (no GPAW needed)
    python make.py --write          only write train.xyz and test.xyz from the structures finished so far
    python make.py --convergence    stress, force and energy against plane-wave cutoff and k-points (convergence.json)
    python make.py --check-forces   forces and stress against central differences of the free energy (check_forces.json)

Needs ASE >= 3.25 and GPAW with its PAW set; see README.md.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from structures import COUNTS, METAL_LENGTH, PHASES, diamond, job_list, make_structure, metal_grid, rattled, strained

HERE = Path(__file__).resolve().parent
CACHE = HERE / "cache"
CUTOFF = 250.0  # plane-wave cutoff (eV)
WIDTH = 0.1  # Fermi-Dirac width (eV)


def cached(folder, name, function):
    """The structure in cache/folder/name.xyz; made by function() and written there (at once and whole) if it is not there yet."""
    path = CACHE / folder / f"{name}.xyz"
    if not path.exists():
        atoms = function()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".part{os.getpid()}")
        write(temporary, atoms, format="extxyz")
        temporary.rename(path)
    return read(path)


def job_name(kind, split, index):
    """Name of a structure in the cache."""
    return f"{split}_{kind}_{index:02d}"


def get_structure(job):
    """The unlabelled structure of a job, from the cache when it is there."""
    return cached("structures", job_name(*job), lambda: make_structure(*job))


def k_points(atoms):
    """k-points: Gamma-centred in the high-pressure phases, shifted by half a step (no Gamma) in all else; no shift where n_i = 1."""
    size = np.asarray(atoms.info["kpts"])
    centred = atoms.info["config_type"] in PHASES
    grid = (np.indices(size).reshape(3, -1).T + (0.0 if centred else 0.5) * (size > 1)) / size
    return (grid + 0.5 - 1e-9) % 1.0 - 0.5 + 1e-9


def calculator(atoms, cutoff=CUTOFF):
    """GPAW calculator with the settings of the data set."""
    from gpaw import GPAW, PW

    isolated = atoms.info["config_type"] == "isolated_atom"
    return GPAW(
        mode=PW(cutoff),
        xc="PBE",
        kpts=k_points(atoms),
        hund=isolated,
        txt=None,
        eigensolver="rmm-diis",
        occupations={"name": "fermi-dirac", "width": 0.01 if isolated else WIDTH, "fixmagmom": isolated},
        convergence={"energy": 1e-5, "density": 1e-5},
    )


def label(atoms, cutoff=CUTOFF):
    """Copy of atoms with free energy, forces and stress from GPAW attached."""
    work = atoms.copy()
    work.calc = calculator(atoms, cutoff)
    forces = work.get_forces()
    results = {"energy": work.get_potential_energy(force_consistent=True), "forces": forces}
    new = atoms.copy()
    if atoms.info["config_type"] == "isolated_atom":
        new.pbc = False
        results["forces"] = np.zeros((1, 3))
    else:
        results["stress"] = work.get_stress()
    new.calc = SinglePointCalculator(new, **results)
    return new


def label_all():
    """Label what is not in the cache yet, one file a structure; failures go to cache/failed.log."""
    for number, job in enumerate(job_list()):
        name = job_name(*job)
        if (CACHE / "labelled" / f"{name}.xyz").exists():
            continue
        atoms = get_structure(job)
        start = time.time()
        try:
            done = cached("labelled", name, lambda atoms=atoms: label(atoms))
        except Exception as error:  # an SCF that does not converge must not stop the rest
            with (CACHE / "failed.log").open("a") as log:
                log.write(f"{name}: {type(error).__name__}: {error}\n")
            continue
        print(
            f"{number:4d} {name:26s} {len(atoms):3d} atoms  {done.get_potential_energy() / len(done):9.4f} eV/atom"
            f"  fmax {np.abs(done.get_forces()).max():7.3f} eV/Å  {time.time() - start:5.1f} s",
            flush=True,
        )


def write_sets():
    """Write train.xyz and test.xyz from the finished structures."""
    for split in ("train", "test"):
        paths = [CACHE / "labelled" / f"{job_name(*job)}.xyz" for job in job_list() if job[1] == split]
        done = [read(path) for path in paths if path.exists()]
        write(HERE / f"{split}.xyz", done)
        print(f"{split}.xyz: {len(done)} structures, {sum(map(len, done))} atoms")
        for kind in COUNTS:
            sizes = [len(a) for a in done if a.info["config_type"] == kind]
            print(f"  {kind:20s} {len(sizes):4d} structures {sum(sizes):5d} atoms")


# Checks
def convergence_cases():
    """(series, structure, cutoff, k-point grid) of the convergence tests; the last of each series is the best converged."""
    si8 = rattled(strained(diamond(8), np.random.default_rng(1), -0.03, 0.03), np.random.default_rng(2), 0.1)
    si8.info["config_type"] = "diamond_rattled"
    cases = [("cutoff", si8, cutoff, 4) for cutoff in (200, 250, 300, 400, 500)]
    cases += [("Si8, strained and rattled", si8, CUTOFF, n) for n in (2, 3, 4, 6)]
    for kind, sizes in (("vacancy", (2, 3)), ("hot_crystal", (2, 3)), ("liquid", (2, 3, 4))):
        atoms = make_structure(kind, "train", 0)
        cases += [(f"{kind}, {len(atoms)} atoms", atoms, CUTOFF, n) for n in sizes]
    for name, ideal in PHASES.items():
        atoms = ideal.copy()
        atoms.info["config_type"] = name
        cases += [(f"{name}, ideal", atoms, CUTOFF, metal_grid(atoms, METAL_LENGTH[name] * factor)) for factor in (1.0, 1.5, 2.0)]
    rng = np.random.default_rng(3)
    atoms = rattled(strained(PHASES["simple_cubic"] * (2, 1, 1), rng, 0.0, 0.03), rng, 0.1)
    atoms.info["config_type"] = "simple_cubic"
    return cases + [("simple_cubic, 2 atoms rattled", atoms, CUTOFF, metal_grid(atoms, length)) for length in (26.0, 39.0)]


def convergence():
    """Run the convergence tests; results (eV/atom, eV/Å, GPa) go to convergence.json, and a row already there is not run again."""
    path = HERE / "convergence.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    for series, atoms, cutoff, grid in convergence_cases():
        atoms.info["kpts"] = np.ones(3, int) * grid
        key = {"series": series, "cutoff": cutoff, "kpts": atoms.info["kpts"].tolist()}
        if any(key.items() <= row.items() for row in rows):
            continue
        done = label(atoms, cutoff)
        rows.append(
            {
                **key,
                "energy": round(done.get_potential_energy() / len(done), 6),
                "force": round(done.get_forces()[0, 0], 5),
                "stress": (done.get_stress() / units.GPa).round(4).tolist(),
            }
        )
        print(series, cutoff, key["kpts"], rows[-1]["energy"], rows[-1]["stress"], flush=True)
        path.write_text(json.dumps(rows) + "\n")


def free_energy(atoms):
    """GPAW free energy (eV)."""
    return label(atoms).get_potential_energy()


def check_forces(step=0.01, strain=0.004):
    """Forces (four structures) and stress (one) against central differences of the free energy."""
    rows = []
    for kind, index in (("diamond_rattled", 0), ("simple_hexagonal", 0), ("vacancy", 0), ("liquid", 0)):
        atoms = next(a for a in (make_structure(kind, "train", i) for i in range(index, 99)) if len(a) > 1)
        forces = label(atoms).get_forces()
        for i, axis in [(0, 0)] if len(atoms) > 8 else [(0, 0), (1, 2)]:
            ends = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[i, axis] += sign * step
                ends.append(free_energy(moved))
            rows.append(
                {
                    "structure": kind,
                    "atoms": len(atoms),
                    "quantity": f"F[{i}][{'xyz'[axis]}] (eV/Å)",
                    "analytic": forces[i, axis],
                    "difference": -(ends[0] - ends[1]) / (2 * step),
                }
            )
            print(rows[-1], flush=True)
    atoms = make_structure("short_pair", "train", 0)
    stress = label(atoms).get_stress()
    for voigt, (i, j) in ((0, (0, 0)), (5, (0, 1))):
        ends = []
        for sign in (1, -1):
            deform = np.eye(3)
            deform[i, j] += sign * strain / 2
            deform[j, i] += sign * strain / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell @ deform, scale_atoms=True)
            ends.append(free_energy(moved))
        rows.append(
            {
                "structure": "short_pair",
                "atoms": 8,
                "quantity": f"stress {'xyz'[i]}{'xyz'[j]} (GPa)",
                "analytic": stress[voigt] / units.GPa,
                "difference": (ends[0] - ends[1]) / (2 * strain * atoms.get_volume()) / units.GPa,
            }
        )
        print(rows[-1], flush=True)
    (HERE / "check_forces.json").write_text(json.dumps(rows, indent=1, default=float) + "\n")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", action="store_true", help="only generate the structures")
    parser.add_argument("--write", action="store_true", help="only write the data files from what is finished")
    parser.add_argument("--convergence", action="store_true", help="run the convergence tests")
    parser.add_argument("--check-forces", action="store_true", help="run the finite-difference checks")
    options = parser.parse_args()
    if options.convergence:
        return convergence()
    if options.check_forces:
        return check_forces()
    if options.structures:
        for job in job_list():
            get_structure(job)
        return None
    if not options.write:
        label_all()
    return write_sets()


if __name__ == "__main__":
    main()
