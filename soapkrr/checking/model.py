"""Checks that any potential must pass, by its predictions alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement, product

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, covalent_radii
from ase.md.verlet import VelocityVerlet

from soapkrr.checking.held_out import held_out
from soapkrr.checking.report import Curve, ModelCheck, Row
from soapkrr.checking.taylor import remainder_slope
from soapkrr.errors import InputError
from soapkrr.structures import as_frames, species_name

#: Structures that are looked at closely, and atoms of each at most.
LOOKED_AT, LARGEST = 3, 64

#: Bounds: slope of the remainder about 2; invariances, relative; a jump at the cutoff, eV/Å; drift of the energy, meV per atom.
SLOPE, INVARIANT, JUMP, DRIFT = 0.05, 1e-8, 1e-3, 2.0

#: Distances of dimers, Å, and the part of the covalent radii below which they must repel.
CLOSEST, REPELS = 0.5, 0.7

#: Steps of the run at constant energy, its time step without and with hydrogen, fs, and its temperature, K.
STEPS, TIME_STEP, WITH_HYDROGEN, TEMPERATURE = 200, 1.0, 0.5, 300.0


def check_model(model, frames: Atoms | list[Atoms] | None = None) -> ModelCheck:
    """All checks of a fitted potential; see `Potential.check`."""
    species = [atomic_numbers[symbol] for symbol in model.reference_energies_]
    given = None if frames is None else as_frames(frames)
    if given is not None:
        _check_species(given, species)
    structures = _structures(given) if given is not None else made_structures(species)
    rows, curves = [], []
    for check in (derivatives, symmetries):
        rows += check(model, structures)
    for check, argument in ((cutoff, species), (dimers, species), (atoms_alone, species), (constant_energy, structures)):
        more, drawn = check(model, argument)
        rows, curves = [*rows, *more], [*curves, *drawn]
    if given is not None:
        more, drawn = held_out(model, given)
        rows, curves = [*rows, *more], [*curves, *drawn]
    name = f"{type(model).__name__} of {', '.join(model.reference_energies_)}"
    return ModelCheck(name, tuple(rows), tuple(curves), str(model.summary()))


def _check_species(frames: list[Atoms], species: Sequence[int]) -> None:
    known = [species_name(z) for z in species]
    for s, atoms in enumerate(frames):
        new = sorted({int(z) for z in atoms.numbers} - set(species))
        if new:
            raise InputError(f"frame {s}: species {species_name(new[0])} is not in the training data, which has {known}.")


def _structures(frames: list[Atoms]) -> list[Atoms]:
    """Some of the structures, small ones, evenly spread over the list."""
    small = [atoms for atoms in frames if 1 < len(atoms) <= LARGEST] or [min(frames, key=len)]
    chosen = np.unique(np.linspace(0, len(small) - 1, min(LOOKED_AT, len(small))).astype(int))
    copies = [small[k].copy() for k in chosen]
    for atoms in copies:
        atoms.calc = None
    return copies


def made_structures(species: Sequence[int]) -> list[Atoms]:
    """A crystal and a cluster of the species at distances of their covalent radii, rattled; the same every time."""
    rng = np.random.default_rng(0)
    distance = 2.1 * float(np.mean([covalent_radii[z] for z in species]))
    sites = np.array(list(product(range(2), range(2), range(2))), dtype=float)
    made = []
    for periodic in (True, False):
        numbers = rng.permutation([species[k % len(species)] for k in range(8)])
        atoms = Atoms(numbers=numbers, positions=distance * sites, cell=[2 * distance] * 3 if periodic else None, pbc=periodic)
        atoms.positions += rng.normal(scale=0.04 * distance, size=(8, 3))
        made.append(atoms)
    return made


def derivatives(model, structures: list[Atoms]) -> list[Row]:
    """Forces and stress are the derivatives of the energy: order of the Taylor remainder, worst structure."""
    rng, forces, stress = np.random.default_rng(0), [2.0], [2.0]
    for atoms in structures:
        p, u = model.predict(atoms), rng.normal(size=(len(atoms), 3))
        forces.append(remainder_slope(lambda t, a=atoms, u=u: model.predict(_moved(a, u, t)).energy[0], -float(np.sum(p.forces[0] * u))))
        if np.isfinite(p.stress[0]).all():
            strain = rng.normal(size=(3, 3))
            strain = 0.5 * (strain + strain.T)
            along = atoms.get_volume() * p.stress[0] @ [*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]]
            stress.append(remainder_slope(lambda t, a=atoms, e=strain: model.predict(_strained(a, e, t)).energy[0], float(along)))
    return [
        _slope_row("forces", forces, len(structures)),
        *([_slope_row("stress", stress, len(stress) - 1)] if len(stress) > 1 else []),
    ]


def _slope_row(kind: str, slopes: list[float], n: int) -> Row:
    worst = max(slopes, key=lambda slope: abs(slope - 2))
    note = f"E(h) − E(0) − h E′ falls as h to this power, in {n} structures; a wrong derivative gives 1"
    return Row("derivatives", f"Taylor slope, {kind}", worst, f"2 ± {SLOPE}", abs(worst - 2) < SLOPE, "", note)


def _moved(atoms: Atoms, u: np.ndarray, t: float) -> Atoms:
    moved = atoms.copy()
    moved.positions += t * u
    return moved


def _strained(atoms: Atoms, strain: np.ndarray, t: float) -> Atoms:
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ (np.eye(3) + t * strain), scale_atoms=True)
    return strained


def symmetries(model, structures: list[Atoms]) -> list[Row]:
    """Rotation, permutation and repetition change nothing but the order and axes of the forces."""
    rng = np.random.default_rng(1)
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    R *= np.linalg.det(R)
    worst = dict.fromkeys(("rotation", "permutation", "repeated cell", "net force"), 0.0)
    for atoms in structures:
        p = model.predict(atoms)
        energy, forces = float(p.energy[0]), p.forces[0]
        unit = 1 + np.abs(forces).max()
        turned, order = atoms.copy(), rng.permutation(len(atoms))
        turned.set_cell(atoms.cell.array @ R.T)
        turned.positions = atoms.positions @ R.T
        results = {"rotation": (turned, forces @ R.T, 1), "permutation": (atoms[order], forces[order], 1)}
        if atoms.pbc.any():
            times = [2 if k == int(np.argmax(atoms.pbc)) else 1 for k in range(3)]
            results["repeated cell"] = (atoms.repeat(times), np.tile(forces, (2, 1)), 2)
        for name, (other, expected, factor) in results.items():
            q = model.predict(other)
            apart = max(abs(q.energy[0] - factor * energy) / (1 + abs(energy)), np.abs(q.forces[0] - expected).max() / unit)
            worst[name] = max(worst[name], float(apart))
        worst["net force"] = max(worst["net force"], float(np.abs(forces.sum(axis=0)).max() / unit))
    note = f"largest relative change of energy and forces in {len(structures)} structures"
    return [Row("symmetry", name, value, f"≤ {INVARIANT:g}", value <= INVARIANT, "", note) for name, value in worst.items()]


def cutoffs(model) -> list[float]:
    """Cutoff radii of the descriptors, Å."""
    given = model.fitted_parameters_["descriptor"]
    terms = given if isinstance(given, list) else [given]
    return sorted({float(getattr(term, "descriptor", term).r_cut) for term in terms})


def cutoff(model, species: Sequence[int]) -> tuple[list[Row], list[Curve]]:
    """Forces when an atom leaves the surroundings of a pair."""
    worst, delta, curves = 0.0, 1e-5, []
    for r_cut in cutoffs(model):
        for z in species:
            near = 2.2 * covalent_radii[z]

            def forces(r, z=z, near=near):
                atoms = [Atoms(numbers=[z] * 3, positions=[[0, 0, 0], [0, min(near, 0.8 * x), 0], [x, 0, 0]]) for x in np.atleast_1d(r)]
                return np.array([f[2, 0] for f in model.predict(atoms).forces])

            inside, outside = forces([r_cut - delta, r_cut + delta])
            worst = max(worst, abs(inside - outside))
            if z == species[0]:
                r = np.linspace(r_cut - 0.4, r_cut + 0.2, 61)
                caption = f"Force on an atom of {species_name(z)} that leaves the cutoff, {r_cut} Å, of a pair."
                curves.append(Curve("Through the cutoff", "distance (Å)", "force (eV/Å)", r, {species_name(z): forces(r)}, caption))
    note = f"jump of the force on an atom over {2 * delta:g} Å at each cutoff"
    return [Row("cutoff", "jump of the force", worst, f"≤ {JUMP:g} eV/Å", worst <= JUMP, "eV/Å", note)], curves


def dimers(model, species: Sequence[int]) -> tuple[list[Row], list[Curve]]:
    """Every pair of species from where atoms touch down to `CLOSEST`: energy falls with distance where cores overlap."""
    farthest = max(max(cutoffs(model)) + 0.3, 2 * CLOSEST)
    r, rows, lines = np.arange(CLOSEST, farthest, 0.05), [], {}
    base = dict(zip(species, model.predict([Atoms(numbers=[z]) for z in species]).energy, strict=True))
    for a, b in combinations_with_replacement(species, 2):
        name = f"{species_name(a)}–{species_name(b)}"
        p = model.predict([Atoms(numbers=[a, b], positions=[[0, 0, 0], [x, 0, 0]]) for x in r])
        lines[name] = p.energy - base[a] - base[b]
        touching = REPELS * (covalent_radii[a] + covalent_radii[b])
        overlap = r <= max(touching, CLOSEST + 0.06)
        weakest = float(min(f[1, 0] for f, inside in zip(p.forces, overlap, strict=True) if inside))
        note = f"weakest repulsion between {CLOSEST} and {r[overlap][-1]:.2f} Å; negative: atoms fall into each other"
        rows.append(Row("dimer", name, weakest, "> 0 eV/Å", weakest > 0, "eV/Å", note))
    caption = "Energy of two atoms less that of free ones, as the model predicts both."
    return rows, [Curve("Dimers", "distance (Å)", "energy (eV)", r, lines, caption)]


def atoms_alone(model, species: Sequence[int]) -> tuple[list[Row], list[Curve]]:
    """Free atoms have finite energies and no force; atoms in one place are refused, or have finite energies."""
    p = model.predict([Atoms(numbers=[z]) for z in species])
    force = float(np.abs(np.concatenate(p.forces)).max()) if np.isfinite(p.energy).all() else np.inf
    rows = [Row("free atoms", "largest force", force, "0", force < 1e-10, "eV/Å", "energies are finite and forces vanish")]
    try:
        finite = bool(np.isfinite(model.predict(Atoms(numbers=[species[0]] * 2, positions=np.zeros((2, 3)))).energy).all())
        note = "two atoms in one place: " + ("a finite energy" if finite else "no finite energy, and no error")
    except InputError:
        finite, note = True, "two atoms in one place: an error that names them"
    return [*rows, Row("free atoms", "coincident atoms are refused", float(finite), "1", finite, "", note)], []


def constant_energy(model, structures: list[Atoms]) -> tuple[list[Row], list[Curve]]:
    """Total energy of a short run at constant energy, velocity Verlet."""
    atoms = structures[0].copy()
    atoms.calc = model.calculator(uncertainty=False)
    rng = np.random.default_rng(0)
    momenta = rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE)[:, None]
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    step = WITH_HYDROGEN if 1 in atoms.numbers else TIME_STEP
    total, times = [], []
    dynamics = VelocityVerlet(atoms, timestep=step * units.fs)

    def record():
        total.append(1e3 * atoms.get_total_energy() / len(atoms))
        times.append(1e-3 * step * len(times))

    dynamics.attach(record)
    note = f"{STEPS} steps of {step} fs from {TEMPERATURE:g} K, {len(atoms)} atoms: trend of the total energy over the run"
    try:
        dynamics.run(STEPS)
    except InputError as error:
        return [Row("dynamics", "drift", np.nan, f"≤ {DRIFT:g} meV/atom", False, "meV/atom", f"{note}; stopped: {error}")], []
    energy, time = np.array(total), np.array(times)
    drift = abs(float(np.polyfit(time, energy, 1)[0])) * time[-1]
    caption = f"Total energy at constant energy, {note}."
    curve = Curve("Constant energy", "time (ps)", "total energy (meV/atom)", time, {"E": energy - energy[0]}, caption)
    return [Row("dynamics", "drift", drift, f"≤ {DRIFT:g} meV/atom", bool(drift <= DRIFT), "meV/atom", note)], [curve]
