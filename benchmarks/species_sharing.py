"""Species that share what is learnt of them, beside plain SOAP: unknown alloys, ten metals, a rare species, a species without data.

Both are `soapkrr.fit` with its defaults: plain with ``search=False``, the other one as it chose by errors of left-out training structures.
Ten metals, and a species without data, have descriptors that are given. Walls below known distances (`soapkrr.repulsion`) are part of both.
Alloys of ASE's effective-medium theory; ten metals of the second-moment potential of Cleri and Rosato 1993, doi 10.1103/PhysRevB.48.22,
pairs of unlike atoms by geometric (energies) and arithmetic (lengths) means.
``python benchmarks/species_sharing.py [PART ...]`` (parts: ``python benchmarks/species_sharing.py --help``) writes
benchmarks/results/species_sharing.json.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list

import soapkrr
from soapkrr import SOAP, CompressedSOAP, CoupledSum, DotProduct, GaussianProcess, RadialScaling, SparseGP
from soapkrr.automatic.variants import SHARE, embedding

HERE = Path(__file__).parent
NOISE = {"energy": 0.001, "forces": 0.02, "stress": 0.001}
SCALING = RadialScaling(r0=3.0, m=4.0)

#: Lattice constants, Å.
CONSTANT = {"Ni": 3.52, "Cu": 3.61, "Rh": 3.80, "Pd": 3.89, "Ag": 4.09, "Ir": 3.84, "Pt": 3.92, "Au": 4.08, "Al": 4.05, "Pb": 4.95}

#: A and ξ (eV), p, q.
SECOND_MOMENT = {
    "Ni": (0.0376, 1.070, 16.999, 1.189),
    "Cu": (0.0855, 1.224, 10.960, 2.278),
    "Rh": (0.0629, 1.660, 18.450, 1.867),
    "Pd": (0.1746, 1.718, 10.867, 3.742),
    "Ag": (0.1028, 1.178, 10.928, 3.139),
    "Ir": (0.1156, 2.289, 16.980, 2.691),
    "Pt": (0.2975, 2.695, 10.612, 4.004),
    "Au": (0.2061, 1.790, 10.229, 4.036),
    "Al": (0.1221, 1.316, 8.612, 2.516),
    "Pb": (0.0980, 0.914, 9.576, 3.648),
}


class SecondMoment(Calculator):
    """E = Σ_i (Σ_j A e^(−p(r/r₀ − 1)) − √(Σ_j ξ² e^(−2q(r/r₀ − 1)))), switched off from 4.5 to 5.5 Å."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")
    inner, outer = 4.5, 5.5

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, r, D = neighbor_list("ijdD", self.atoms, self.outer)
        a, b = (np.array([(*SECOND_MOMENT[s], CONSTANT[s] / np.sqrt(2)) for s in self.atoms.symbols])[k].T for k in (i, j))
        A, xi, (p, q, r0) = np.sqrt(a[0] * b[0]), np.sqrt(a[1] * b[1]), 0.5 * (a[2:] + b[2:])
        t = np.clip((r - self.inner) / (self.outer - self.inner), 0, 1)
        f, df = 1 - t**3 * (10 - 15 * t + 6 * t**2), -30 * t**2 * (1 - t) ** 2 / (self.outer - self.inner)
        repulsion, bond = A * np.exp(-p * (r / r0 - 1)), xi**2 * np.exp(-2 * q * (r / r0 - 1))
        n = len(self.atoms)
        root = np.sqrt(np.bincount(i, bond * f, n))
        slope = repulsion * (df - p / r0 * f) - 0.5 / root[i] * bond * (df - 2 * q / r0 * f)
        pairs = (slope / r)[:, None] * D
        forces = np.array([np.bincount(i, x, n) - np.bincount(j, x, n) for x in pairs.T]).T
        stress = np.einsum("pa,pb->ab", pairs, D) / self.atoms.get_volume()
        energy = float(np.bincount(i, repulsion * f, n).sum() - root.sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]}


def alloy(symbols, rng, calculator=EMT) -> Atoms:
    """A strained, rattled fcc cell of these atoms at the mean of their lattice constants, labelled."""
    atoms = bulk("Au", a=np.mean([CONSTANT[s] for s in symbols]), cubic=True).repeat((len(symbols) // 4, 1, 1))
    atoms.symbols[:] = symbols
    strain = np.eye(3) * rng.uniform(0.97, 1.03) + rng.normal(scale=0.02, size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.1, rng=rng)
    atoms.calc = calculator()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def random_alloys(species, n: int, rng, calculator=EMT) -> list[Atoms]:
    """Random occupations that have every one of the species."""
    found = []
    while len(found) < n:
        symbols = rng.choice(list(species), 8)
        if set(symbols) == set(species):
            found.append(alloy(symbols, rng, calculator))
    return found


def errors(model, frames: list[Atoms]) -> dict:
    """Mean absolute errors, those of forces also by species; part of energies inside intervals of 90 %."""
    p = model.predict(frames, uncertainty=True)
    e = np.array([(q - a.get_potential_energy()) / len(a) for a, q in zip(frames, p.energy, strict=True)])
    low, high = p.interval("energy", 0.9)
    energies = np.array([a.get_potential_energy() for a in frames])
    f = np.concatenate([np.abs(q - a.get_forces()) for a, q in zip(frames, p.forces, strict=True)])
    of = np.concatenate([a.get_chemical_symbols() for a in frames])
    return {
        "energy_mev_per_atom": 1e3 * float(np.abs(e).mean()),
        "forces_mev_per_angstrom": 1e3 * float(f.mean()),
        "energy_rms": 1e3 * float(np.sqrt(np.mean(e**2))),
        "forces_rms": 1e3 * float(np.sqrt(np.mean(f**2))),
        "by_species": {s: 1e3 * float(f[of == s].mean()) for s in np.unique(of).tolist()},
        "energies_within_90": float(np.mean((low <= energies) & (energies <= high))),
    }


def compared(train, tests: dict, timed: bool = False) -> dict:
    """Errors of plain SOAP and of what the fit chose, processor time of each, and what was tried; ``timed``: beside the chosen one."""
    result: dict = {}
    for title, search in (("plain", False), ("sharing", True)):
        start = time.process_time()
        model = soapkrr.fit(train, search=search)
        line = {"fit_processor_s": time.process_time() - start, "left_out": model.left_out_errors_}
        descriptor = model.process_.descriptors[0]
        line["features"] = descriptor.n_features
        said = {c.name: c.value for c in model.choices_}
        line |= {"variant": said.get("variant", "plain SOAP"), "tried": said.get("tried", {})}
        result[title] = {**line, **{t: errors(model, frames) for t, frames in tests.items()}}
        print(f"  {line}", flush=True)
        for t in tests:
            of = result[title][t]
            print(
                f"  {title:8s}{line['features']:7d} features, {t:22s}{of['energy_mev_per_atom']:8.2f} meV/atom"
                f"{of['forces_mev_per_angstrom']:8.1f} meV/Å, {100 * of['energies_within_90']:.0f} % of energies within 90 %",
                flush=True,
            )
    if not timed:
        return result
    plan = soapkrr.auto.choose(train)
    start = time.process_time()
    plan.variants.get(result["sharing"]["variant"], soapkrr.auto.choose(train, settings=soapkrr.auto.Settings(search=False))).fit(train)
    result["fit_over_chosen_alone"] = result["sharing"]["fit_processor_s"] / (time.process_time() - start)
    print(f"  whole fit {result['fit_over_chosen_alone']:.1f} × the chosen one alone", flush=True)
    return result


def quaternary(species, seed: int) -> dict:
    """Elements and binary alloys known, the quaternary not."""
    rng = np.random.default_rng(seed)
    pairs = list(combinations(species, 2))
    train = [alloy([s] * 8, rng) for s in species for _ in range(4)] + [a for pair in pairs for a in random_alloys(pair, 8, rng)]
    tests = {"left-out binaries": [a for pair in pairs for a in random_alloys(pair, 4, rng)], "quaternary": random_alloys(species, 24, rng)}
    result = compared(train, tests, timed=True)
    for title in ("plain", "sharing"):
        known, new = (result[title][t] for t in tests)
        for kind in ("energy_mev_per_atom", "forces_mev_per_angstrom", "energy_rms", "forces_rms"):
            result[title][f"{kind}, new over known"] = new[kind] / known[kind]
    return result


def ten() -> dict:
    """Two hundred random alloys of ten metals, sparse processes of one size: plain SOAP, and two pseudo-species of it, with few features.

    Not the automatic fit, whose principal components have 400 features whatever the descriptor.
    """
    rng, species = np.random.default_rng(0), sorted(SECOND_MOMENT)
    frames = [alloy(rng.choice(rng.choice(species, 4, replace=False), 8), rng, SecondMoment) for _ in range(240)]
    soap = SOAP(species, r_cut=5.0, n_max=4, l_max=3, scaling=SCALING)
    two = CompressedSOAP(**soap.get_params(deep=False), embedding=embedding(species, 2, 4.0))
    result = {}
    coupled = CoupledSum(two, embedding(species, len(species)), SHARE)
    for name, descriptor in {"plain": soap, "two pseudo-species": two, "two pseudo-species, centres coupled": coupled}.items():
        model = SparseGP(descriptor, DotProduct(3), n_sparse=300, noise=NOISE).fit(frames[:200])
        left_out = model.leave_out(frames[:200]).errors()
        result[name] = {"features": descriptor.n_features, "left_out": left_out, "test": errors(model, frames[200:])}
        print(f"  {name}: {result[name]}", flush=True)
    return result


def rare() -> dict:
    """Forty structures of four metals, and ten environments of a fifth."""
    rng, species, guest = np.random.default_rng(0), ["Cu", "Ag", "Au", "Pd"], "Pt"

    def with_guests(n):
        return alloy([*([guest] * n), *rng.choice(species, 8 - n)], rng)

    train = [alloy(rng.choice(species, 8), rng) for _ in range(40)] + [with_guests(2) for _ in range(5)]
    tests = {"test": [with_guests(2) for _ in range(30)]}
    result = compared(train, tests)
    for title in ("plain", "sharing"):
        line = result[title]["test"]
        line["worst_over_average"] = max(line["by_species"].values()) / line["forces_mev_per_angstrom"]
        print(f"  {title:8s}worst species {line['worst_over_average']:.2f} × the average of forces, {line['by_species']}")
    return result


def unseen() -> dict:
    """Cu–Au never together in the data, beside Cu–Pd and Au–Pd; and gold in none of them, its reference energy given."""
    rng, species, result = np.random.default_rng(0), ["Cu", "Au", "Pd"], {}
    known = [a for pair in (("Cu", "Pd"), ("Au", "Pd")) for a in random_alloys(pair, 20, rng)]
    known += [alloy([s] * 8, rng) for s in species for _ in range(4)]
    curve = [alloy(["Cu"] * n + ["Au"] * (8 - n), rng) for n in range(1, 8) for _ in range(4)]
    result["mixing curve"] = compared(known, {"Cu-Au": curve})
    rng, species = np.random.default_rng(1), ["Ni", "Cu", "Pd", "Pt", "Ag", "Au"]
    train = [alloy(rng.choice([s for s in species if s != "Au"], 8), rng) for _ in range(60)]
    new = [alloy(["Au", *rng.choice([s for s in species if s != "Au"], 7)], rng) for _ in range(30)]
    options = dict(r_cut=5.0, n_max=5, l_max=4, scaling=SCALING, extrapolate_species=True)
    one = CompressedSOAP(species, embedding=embedding(species, 4, 4.0), **options)
    for name, d in {"centres apart": one, "centres coupled": CoupledSum(one, embedding(species, 6), SHARE)}.items():
        model = GaussianProcess(d, DotProduct(3), noise=NOISE, baseline=dict.fromkeys(species, 0.0)).fit(train, optimize=True)
        result[f"gold unseen, {name}"] = line = errors(model, new)
        print(f"  gold unseen, {name}: {line}")
    return result


PARTS = {
    "quaternary": lambda: quaternary(["Cu", "Ag", "Au", "Pd"], 5),
    "another": lambda: quaternary(["Ni", "Cu", "Pt", "Al"], 5),
    "ten": ten,
    "rare": rare,
    "unseen": unseen,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "species_sharing.json")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for part in args.parts or PARTS:
        print(part, flush=True)
        start = time.process_time()
        results[part] = {**PARTS[part](), "processor_s": None}
        results[part]["processor_s"] = time.process_time() - start
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
