"""Silicon's lattice constant, elastic constants, phonons, vacancy, surfaces and transition pressure: `soapkrr.fit` with bars, and GPAW.

``python benchmarks/observables.py`` fits the silicon set of the package with `soapkrr.fit` and nothing else, writes its numbers to
benchmarks/results/observables.json, and the structures that are at rest on the model to benchmarks/results/observables.xyz.
``python benchmarks/observables.py --reference FOLDER`` then computes the same numbers with GPAW and the settings of the set
(data/silicon/README.md), by the same functions; each calculation is kept in the folder, so that it can be stopped and go on. Without GPAW
the column of references stays as it is in results/observables_reference.json.

Everything is at one lattice constant, 5.47 Å, so that both know the same structures: elastic constants by stresses, phonons of 16 atoms,
energies of vacancy (15 atoms) and slabs (8 atoms) at the geometry at rest on the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, diamond100, diamond111
from ase.calculators.calculator import Calculator
from ase.io import read, write

import soapkrr
from soapkrr import Energy, Observable, observables
from soapkrr.observables.energies import settled
from soapkrr.observables.number import DELTA, Entry, numbers_of, with_std
from soapkrr.observables.source import as_source

HERE = Path(__file__).parent
A0 = 5.47
PLACES = {"G": (0.0, 0.0, 0.0), "X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)}


class Reference(Calculator):
    """GPAW with the settings of the silicon set; every calculation is kept in a folder."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        name = hashlib.sha256(b"".join(np.round(x, 8).tobytes() for x in (atoms.numbers, atoms.positions, atoms.cell.array)))
        path = self.folder / f"{len(atoms)}-{name.hexdigest()[:16]}.json"
        if not path.exists():
            path.write_text(json.dumps(self._labels(atoms)))
        self.results = {
            key: np.array(value) if key in ("forces", "stress") else value for key, value in json.loads(path.read_text()).items()
        }

    def _labels(self, atoms: Atoms) -> dict:
        from gpaw import GPAW, PW

        size, shift = grid_of(atoms)
        grid = (np.indices(size).reshape(3, -1).T + shift * (size > 1)) / size
        work = atoms.copy()
        work.pbc = True
        work.calc = GPAW(
            mode=PW(250.0),
            xc="PBE",
            kpts=(grid + 0.5 - 1e-9) % 1.0 - 0.5 + 1e-9,
            txt=None,
            eigensolver="rmm-diis",
            occupations={"name": "fermi-dirac", "width": 0.1},
            convergence={"energy": 1e-5, "density": 1e-5},
        )
        forces, energy = work.get_forces(), work.get_potential_energy(force_consistent=True)
        return {"energy": energy, "free_energy": energy, "forces": forces.tolist(), "stress": work.get_stress().tolist()}


def grid_of(atoms: Atoms) -> tuple[np.ndarray, float]:
    """k-points of the set for each kind of cell, and their shift in steps."""
    if len(atoms) == 2 and atoms.cell.angles().max() > 80:
        return np.array([13, 13, 9]), 0.0
    slab = (6, 6, 1) if atoms.cell.lengths()[0] < 5 else (3, 6, 1)
    return np.array({2: (6, 6, 6), 8: slab}.get(len(atoms), (2, 2, 2))), 0.5


def beta_tin() -> Atoms:
    """At the ratio c/a of the set's ideal cell."""
    cell = [[-2.4, 2.4, 1.325], [2.4, -2.4, 1.325], [2.4, 2.4, -1.325]]
    return Atoms("Si2", cell=cell, scaled_positions=[[0, 0, 0], [0.75, 0.25, 0.5]], pbc=True)


def at_rest(model) -> dict[str, Atoms]:
    """Vacancy and slabs at rest on a model."""
    sixteen = bulk("Si", a=A0) * (2, 2, 2)
    defect = observables.vacancy(model, sixteen, relax=False).atoms
    found = {"vacancy": settled(as_source(model), defect)}
    for name, build, size in (("(100)", diamond100, (2, 1, 4)), ("(111)", diamond111, (1, 1, 8))):
        slab = build("Si", size, a=A0, vacuum=4.0)
        slab.pbc = True
        found[name] = observables.surface(model, slab, bulk("Si", a=A0)).atoms
    return found


def numbers(model, rest: dict[str, Atoms]) -> dict[str, observables.Number]:
    """Every number of a model or a calculator."""
    crystal = bulk("Si", a=A0)
    sixteen = crystal * (2, 2, 2)
    eos = observables.equation_of_state(model, crystal, n=7, relax=False)
    a0 = float((8 * eos.V0.value) ** (1 / 3))
    linear = Observable() if eos.V0.linear is None else a0 / (3 * eos.V0.value) * (eos.V0.linear - eos.V0.value) + a0
    found = {**numbers_of(eos.V0.source, [Entry("a0", a0, "Å", linear)], DELTA), "B0": eos.B0}
    found["vacancy"] = observables.difference(model, Energy(rest["vacancy"]) - 15 / 16 * Energy(sixteen), "vacancy")
    for name in ("(100)", "(111)"):
        found[name] = observables.surface(model, rest[name], crystal, relax=False).gamma
    phonon = observables.phonons(model, crystal, (2, 2, 2), PLACES, central=True, relax=False)
    found |= {name: phonon[name] for name in ("G4", "X1", "X3", "X5", "L1", "L3", "L4", "L5")}
    elastic = observables.elastic_constants(model, crystal, relax=False)
    found |= {name: elastic[name] for name in ("C11", "C12", "C44")}
    pressures = observables.phases(model, {"diamond": crystal, "beta-tin": beta_tin()}, strain=0.12, n=5, relax=False)
    found["beta-tin"] = pressures["diamond-beta-tin"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, metavar="FOLDER", help="compute the numbers with GPAW and keep its calculations here")
    parser.add_argument("--model", type=Path, help="a fitted model, instead of a fit")
    args = parser.parse_args()
    structures = HERE / "results" / "observables.xyz"
    if args.reference:
        args.reference.mkdir(parents=True, exist_ok=True)
        model, rest = Reference(args.reference), {a.info["name"]: a for a in read(structures, ":")}
    else:
        model = soapkrr.load(args.model) if args.model else soapkrr.fit(soapkrr.datasets.silicon().train)
        rest = at_rest(model)
        for name, atoms in rest.items():
            atoms.info["name"] = name
        write(structures, list(rest.values()))
    found = numbers(model, rest)
    kept = ("value", "std", "posterior_std", "unit", "method")
    rows = {key: {name: getattr(n, name) for name in kept} for key, n in found.items()}
    path = HERE / "results" / ("observables_reference.json" if args.reference else "observables.json")
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    table()


def table() -> None:
    """What is in both files of results, and how many references are within the intervals."""
    ours, theirs = (_read(HERE / "results" / name) for name in ("observables.json", "observables_reference.json"))
    inside = []
    for key, row in ours.items():
        known = theirs.get(key)
        line = f"{key:9} {with_std(row['value'], row['std'])} {row['unit']}"
        if known is not None:
            inside.append(abs(known["value"] - row["value"]) / row["std"])
            line = f"{line:34} reference {known['value']:.4g}, {inside[-1]:.1f} std, {row['std'] / row['posterior_std']:.1f} x posterior"
        print(line)
    within, far = sum(x < 1.645 for x in inside), max(inside, default=0)
    print(f"{within} of {len(inside)} references within the 90 % intervals; the farthest {far:.1f} std")


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
