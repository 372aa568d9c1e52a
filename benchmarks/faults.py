"""Faults planted into clean data, and what `soapkrr.check` says of them; and what it says of the clean data.

    python benchmarks/faults.py FOLDER [--only si li tio2 ethanol emt] [--n 50 100] [--output results/faults.json]

FOLDER holds NAME_train.xyz and NAME_test.xyz of si, li, tio2 and ethanol. Of each, N structures are drawn at random; faults are planted at
places drawn at random too. A fault counts as found where a finding that is no note names the frames (those of the fault and no others)
and a word of the cause; for single structures the frame is enough where the cause cannot be known. An alloy of EMT is generated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

import soapkrr

KCAL, ATOMIC = units.kcal / units.mol, units.Hartree / units.Bohr


def labelled(atoms, **results):
    """A copy that carries these labels."""
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def changed(frames, places=None, **changes):
    """Copies; labels of those at ``places`` (None: all) are replaced by functions of (label, atoms)."""
    out = []
    for s, atoms in enumerate(frames):
        results = {kind: value for kind, value in atoms.calc.results.items() if kind in ("energy", "forces", "stress")}
        if places is None or s in places:
            results |= {kind: change(results[kind], atoms) for kind, change in changes.items() if kind in results}
        out.append(labelled(atoms, **results) if results else atoms)
        out[-1].info.update(atoms.info)
    return out


def some(rng, frames, n):
    return sorted(rng.choice(len(frames), size=n, replace=False).tolist())


def swapped(frames, rng):
    """Two structures of the same composition, chosen at random among those not next to rest, exchange their labels."""
    moving = [s for s, a in enumerate(frames) if np.abs(a.calc.results["forces"]).max() > 0.1]
    for _ in range(1000):
        a, b = rng.choice(moving, size=2, replace=False)
        if len(frames[a]) == len(frames[b]) and (frames[a].numbers == frames[b].numbers).all():
            break
    else:
        return None
    out = changed(frames)
    out[a], out[b] = labelled(frames[a], **frames[b].calc.results), labelled(frames[b], **frames[a].calc.results)
    return out, sorted([int(a), int(b)]), "each other's"


def duplicate(frames, rng):
    s = int(rng.integers(len(frames)))
    twin = changed([frames[s]], energy=lambda e, a: e + 0.5)[0]
    return [*frames, twin], [s, len(frames)], "different labels"


def one(frames, rng, cause, **changes):
    s = some(rng, frames, 1)
    return changed(frames, s, **changes), s, cause


def part(frames, rng, cause, kind, change):
    """A twentieth of the structures, of those whose labels of this kind are not next to zero."""
    sizes = [float(np.abs(a.calc.results[kind]).max()) for a in frames]
    large = [s for s, size in enumerate(sizes) if size > 0.3 * np.median(sizes) and size > 1e-4]
    places = sorted(int(s) for s in rng.choice(large, size=max(2, len(frames) // 20), replace=False))
    return changed(frames, places, **{kind: change}), places, cause


FAULTS = {
    "clean": lambda f, rng: (f, None, None),
    "sign of all stresses": lambda f, rng: (changed(f, stress=lambda s, a: -s), "stress", "sign"),
    "sign of 5 % of the stresses": lambda f, rng: part(f, rng, "sign", "stress", lambda s, a: -s),
    "stress in GPa": lambda f, rng: (changed(f, stress=lambda s, a: s / units.GPa), "stress", "GPa"),
    "stress as VASP prints it, kbar": lambda f, rng: (changed(f, stress=lambda s, a: -10 * s / units.GPa), "stress", "kbar"),
    "stress in VASP's order": lambda f, rng: (changed(f, stress=lambda s, a: s[[0, 1, 2, 5, 3, 4]]), "stress", "order"),
    "virial for stress": lambda f, rng: (changed(f, stress=lambda s, a: -s * a.get_volume()), "stress", "virial"),
    "forces in Hartree/Bohr": lambda f, rng: (changed(f, forces=lambda x, a: x / ATOMIC), "forces", "Hartree/Bohr"),
    "forces in Hartree/Bohr, 5 %": lambda f, rng: part(f, rng, "Hartree/Bohr", "forces", lambda x, a: x / ATOMIC),
    "gradients for forces": lambda f, rng: (changed(f, forces=lambda x, a: -x), "forces", "sign"),
    "energies in kcal/mol": lambda f, rng: (changed(f, energy=lambda e, a: e / KCAL), "energy", "kcal"),
    "energies and forces in kcal/mol": lambda f, rng: (
        changed(f, energy=lambda e, a: e / KCAL, forces=lambda x, a: x / KCAL),
        "energy",
        "kcal",
    ),
    "one energy off by 1 eV": lambda f, rng: one(f, rng, "energy", energy=lambda e, a: e + 1.0),
    "one swapped pair of labels": swapped,
    "a duplicate with another energy": duplicate,
    "one frame of another functional": lambda f, rng: one(f, rng, "", energy=lambda e, a: e + 0.1 * len(a), forces=lambda x, a: 1.1 * x),
}


def alloy(n: int, seed: int = 0):
    """Rattled and strained cells of copper, gold and nickel with labels of EMT."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", a=rng.uniform(3.6, 4.0), cubic=True).repeat((2, 1, 1))
        atoms.numbers = rng.choice([28, 29, 79], size=len(atoms))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        frames.append(labelled(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=atoms.get_stress()))
    return frames


def judged(findings, where, cause) -> tuple[bool, list[str]]:
    """Whether a fault is found and named and nothing else is, and what was said."""
    said = [f for f in findings if f.severity != "note"]
    lines = [str(f) for f in said]
    if where is None:
        return not said, lines
    if isinstance(where, str):
        mine = [f for f in said if not f.frames and f"the {where} of all" in f.what and cause in f.what]
        return bool(mine) and all(not f.frames for f in said), lines
    named = {s for f in said if cause in f.what for s in f.frames}
    return set(where) <= named and {s for f in said for s in f.frames} <= set(where), lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=["si", "li", "tio2", "ethanol", "emt"])
    parser.add_argument("--n", nargs="+", type=int, default=[100])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", nargs="+", help="words of the faults to plant")
    parser.add_argument("--test", action="store_true", help="draw from the test sets")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    results = []
    for name in args.only:
        everything = alloy(100) if name == "emt" else read(args.folder / f"{name}_{'test' if args.test else 'train'}.xyz", ":")
        for n in args.n:
            rng = np.random.default_rng(args.seed)
            n = min(n, len(everything)) if n else len(everything)
            frames = [everything[s] for s in sorted(rng.choice(len(everything), size=n, replace=False))]
            for fault, plant in FAULTS.items():
                if args.faults and not any(word in fault for word in args.faults):
                    continue
                if "stress" in fault and "stress" not in frames[0].calc.results:
                    continue
                planted = plant(frames, rng)
                if planted is None:
                    continue
                start = time.perf_counter()
                ok, said = judged(soapkrr.check(planted[0]), *planted[1:])
                seconds = time.perf_counter() - start
                results.append(
                    {"data": name, "n": len(frames), "fault": fault, "where": planted[1], "found": ok, "said": said, "seconds": seconds}
                )
                verdict = "ok" if ok else "MISSED"
                print(
                    f"{name:8} {len(frames):5} {fault:34} {verdict:7} {seconds:5.1f} s  {planted[1]!s:12} {' | '.join(said)[:300]}",
                    flush=True,
                )
                if args.output:
                    args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{sum(r['found'] for r in results)} of {len(results)}")


if __name__ == "__main__":
    main()
