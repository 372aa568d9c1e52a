"""Relaxations: reference calls with a surrogate learnt on the way, and of BFGS without one.

Effective-medium theory for metals and adsorbates, GFN1 and GFN2 for the others (tblite); structures are shaken, three seeds each; calls
until the largest force is below 0.05 and 0.01 eV/Å, the first one counted.
``python benchmarks/decisions.py [NAME...]`` adds to benchmarks/results/decisions.json; names of `SYSTEMS`, "g2", "series", "overhead",
"density functionals" (needs pyscf) or "plane waves" (needs gpaw); without any, all that is not there yet but the last two.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron, Octahedron
from ase.collections import g2
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from geometries import alanine_dipeptide, uracil_dimer, water_hexamer

from soapkrr import SurrogateRelaxation

OUT = Path(__file__).parent / "results" / "decisions.json"

#: Calls of an optimiser after which it counts as lost.
MOST = 200

FMAX = (0.05, 0.01)


def slab(kind, metal: str, size, adsorbate, height: float, site: str, seed: int) -> Atoms:
    """An adsorbate on layers of which the lowest one is held."""
    atoms = kind(metal, size, vacuum=8.0)
    add_adsorbate(atoms, adsorbate, height, site)
    atoms.set_constraint(FixAtoms([atom.index for atom in atoms if atom.tag == size[2]]))
    atoms.rattle(0.1, seed=seed)
    return atoms


def cluster(atoms: Atoms, seed: int) -> Atoms:
    atoms.rattle(0.15, seed=seed)
    return atoms


def vacancy(seed: int) -> Atoms:
    """Fifteen copper and sixteen gold atoms at random, one site empty."""
    atoms = bulk("Cu", a=3.83, cubic=True) * (2, 2, 2)
    del atoms[5]
    atoms.symbols[np.random.default_rng(seed).permutation(31)[:16]] = "Au"
    atoms.rattle(0.05, seed=seed)
    return atoms


def alloy(seed: int) -> FrechetCellFilter:
    """CuAuPd in a cell that relaxes too."""
    atoms = bulk("Cu", a=3.9, cubic=True) * (1, 2, 2)
    atoms.symbols = np.random.default_rng(seed).permutation(["Cu"] * 4 + ["Au"] * 4 + ["Pd"] * 8).tolist()
    atoms.rattle(0.05, seed=seed)
    return FrechetCellFilter(atoms)


def ionic(symbol: str, a: float, seed: int) -> Atoms:
    atoms = bulk(symbol, "rocksalt", a=a, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms * (1, 1, 2) if len(atoms) == 8 else atoms


def shaken(name, seed: int) -> Atoms:
    """A molecule of ASE by name, or of a function."""
    atoms = molecule(name) if isinstance(name, str) else name()
    atoms.rattle(0.1, seed=seed)
    return atoms


#: {name: (reference, structure of a seed)}.
SYSTEMS = {
    "Cu13": ("emt", lambda seed: cluster(Icosahedron("Cu", 2), seed)),
    "Au19": ("emt", lambda seed: cluster(Octahedron("Au", 3), seed)),
    "Cu111+CO": ("emt", lambda seed: slab(fcc111, "Cu", (2, 2, 3), molecule("CO"), 2.0, "ontop", seed)),
    "Pt111+O": ("emt", lambda seed: slab(fcc111, "Pt", (2, 2, 3), "O", 1.5, "bridge", seed)),
    "Cu100+N": ("emt", lambda seed: slab(fcc100, "Cu", (2, 2, 3), "N", 1.2, "hollow", seed)),
    "Pt111+CO": ("emt", lambda seed: slab(fcc111, "Pt", (3, 3, 4), molecule("CO"), 2.0, "ontop", seed)),
    "CuAu31+vacancy": ("emt", vacancy),
    "CuAuPd8+cell": ("emt", alloy),
    "Mg8O8": ("gfn1", lambda seed: ionic("MgO", 4.21, seed)),
    "Na8Cl8": ("gfn1", lambda seed: ionic("NaCl", 5.64, seed)),
    "ethanol": ("gfn2", lambda seed: shaken("CH3CH2OH", seed)),
    "ether": ("gfn2", lambda seed: shaken("CH3CH2OCH3", seed)),
    "C6H6": ("gfn2", lambda seed: shaken("C6H6", seed)),
    "acetamide": ("gfn2", lambda seed: shaken("CH3CONH2", seed)),
    "alanine dipeptide": ("gfn2", lambda seed: shaken(alanine_dipeptide, seed)),
    "uracil dimer": ("gfn2", lambda seed: shaken(uracil_dimer, seed)),
    "water hexamer": ("gfn2", lambda seed: shaken(water_hexamer, seed)),
}


def underlying(atoms) -> Atoms:
    return atoms if isinstance(atoms, Atoms) else atoms.atoms


def calculator(name):
    """By name, or itself."""
    if not isinstance(name, str):
        return name
    if name == "emt":
        return EMT()
    from tblite.ase import TBLite

    return TBLite(method={"gfn1": "GFN1-xTB", "gfn2": "GFN2-xTB"}[name], verbosity=0)


def calls(optimizer, make, reference, **options) -> list[int | None]:
    """Calls until the forces are below each of `FMAX`; None where more than `MOST` would be needed."""
    atoms, seen = make(), []
    underlying(atoms).calc = calculator(reference)
    run = optimizer(atoms, logfile=None, **options)
    run.attach(lambda: seen.append(float(run.optimizable.gradient_norm(run.optimizable.get_gradient()))))
    run.run(fmax=FMAX[-1], steps=MOST - 1)
    return [next((k + 1 for k, force in enumerate(seen) if force <= fmax), None) for fmax in FMAX]


def row(name: str, seeds: int) -> dict:
    reference, make = SYSTEMS[name]
    start = time.process_time()
    found = {"bfgs": [], "surrogate": []}
    for seed in range(1, seeds + 1):
        found["bfgs"].append(calls(BFGS, lambda seed=seed: make(seed), reference))
        found["surrogate"].append(calls(SurrogateRelaxation, lambda seed=seed: make(seed), reference))
    return _summary(found) | {"reference": reference, "process_seconds": round(time.process_time() - start, 1)}


def _summary(found: dict) -> dict:
    """Medians over seeds, and the ratio of the calls to those of BFGS."""
    medians = {
        kind: [float(np.median([MOST if c is None else c for c in part])) for part in zip(*rows, strict=True)]
        for kind, rows in found.items()
    }
    ratio = [s / b for s, b in zip(medians["surrogate"], medians["bfgs"], strict=True)]
    return {"fmax": list(FMAX), "calls": found, "median": medians, "ratio": [round(r, 3) for r in ratio]}


def molecules(seeds: int) -> dict:
    """27 molecules of 6 to 13 atoms, GFN2; and with GFN1 as prior mean."""
    names = [n for n in g2.names if 6 <= len(molecule(n)) <= 13 and not molecule(n).get_initial_magnetic_moments().any()]
    found = {"bfgs": [], "surrogate": [], "with GFN1 as prior mean": []}
    for name in names[:: max(1, len(names) // 27)][:27]:
        for seed in range(1, seeds + 1):
            make = lambda name=name, seed=seed: shaken(name, seed)  # noqa: E731
            found["bfgs"].append(calls(BFGS, make, "gfn2"))
            found["surrogate"].append(calls(SurrogateRelaxation, make, "gfn2"))
            found["with GFN1 as prior mean"].append(calls(SurrogateRelaxation, make, "gfn2", prior=calculator("gfn1")))
    return _summary(found) | {"stalled": {kind: sum(c[-1] is None for c in part) for kind, part in found.items()}}


def series(seeds: int, n: int = 20) -> dict:
    """Calls of each of 20 structures that share what is learnt, to 0.05 eV/Å."""
    kinds = {
        "Cu8Au5": lambda seed: _recoloured(Icosahedron("Cu", 2), "Au", 5, seed),
        "O/Cu111": lambda seed: slab(fcc111, "Cu", (2, 2, 3), "O", 1.4, ("fcc", "hcp", "bridge", "ontop")[seed % 4], seed),
        "CuAu16": lambda seed: _recoloured(bulk("Cu", a=3.85, cubic=True) * (2, 2, 1), "Au", 8, seed),
    }
    found = {}
    for name, make in kinds.items():
        took, model = [], None
        for seed in range(n):
            atoms = make(seed)
            atoms.calc = EMT()
            run = SurrogateRelaxation(atoms, logfile=None, model=model)
            run.run(fmax=0.05, steps=MOST)
            took.append(run.calls)
            model = run.model
        found[name] = {"calls": took, "mean": float(np.mean(took)), "mean_from_the_sixth": float(np.mean(took[5:]))}
    return found


def _compared(make, reference) -> dict:
    """Both optimisers from one structure; ``reference`` makes a calculator."""
    found = {"bfgs": [calls(BFGS, make, reference())], "surrogate": [calls(SurrogateRelaxation, make, reference())]}
    return _summary(found)


def functionals(seeds: int) -> dict:
    """Methanol by a density functional, one seed."""
    from functionals import PBE

    return _compared(lambda: shaken("CH3OH", 1), PBE) | {"reference": "PBE/def2-SVP"}


def in_a_box() -> Atoms:
    """Methanol, shaken, in a periodic box."""
    atoms = shaken("CH3OH", 1)
    atoms.center(vacuum=3.0)
    atoms.pbc = True
    return atoms


def silicon_and_methanol(seeds: int) -> dict:
    """A molecule and a small solid by plane waves, one seed each. Up to 400 eV forces of a molecule change by 0.1 eV/Å when it is moved."""
    from functionals import plane_waves

    solid = _compared(lambda: shaken(lambda: bulk("Si", cubic=True), 1), lambda: plane_waves(250, 3))
    return {"solid": solid, "molecule": _compared(in_a_box, lambda: plane_waves(650)), "reference": "PBE, plane waves"}


def _recoloured(atoms: Atoms, other: str, n: int, seed: int) -> Atoms:
    atoms.symbols[np.random.default_rng(seed).permutation(len(atoms))[:n]] = other
    atoms.rattle(0.1, seed=seed)
    return atoms


def overhead(seeds: int) -> dict:
    """Time of learning the 50th calculation of 14 atoms, s."""
    from soapkrr.active.surrogate import Reference, Surrogate

    surrogate, took = Surrogate(["Cu", "O"]), []
    for seed in range(50):
        atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
        add_adsorbate(atoms, molecule("O2"), 1.5, "fcc")
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        reference = Reference(atoms.copy(), atoms.get_potential_energy(), atoms.get_forces())
        start = time.perf_counter()
        surrogate.learn(reference)
        took.append(time.perf_counter() - start)
    return {
        "atoms": 14,
        "rows": int(surrogate.model.process_.structures.layout.size),
        "seconds_of_the_last_five": float(np.median(took[-5:])),
    }


def main() -> None:
    others = {"g2": molecules, "series": series, "overhead": overhead}
    asked = {"density functionals": functionals, "plane waves": silicon_and_methanol}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*SYSTEMS, *others, *asked, []])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in args.names or [n for n in (*SYSTEMS, *others) if n not in results]:
        results[name] = row(name, args.seeds) if name in SYSTEMS else (others | asked)[name](args.seeds)
        OUT.write_text(json.dumps(results, indent=1) + "\n")
        print(name, results[name].get("median", results[name]), results[name].get("ratio", ""), flush=True)


if __name__ == "__main__":
    main()
