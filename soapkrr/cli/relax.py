"""``soapkrr relax``."""

from __future__ import annotations

import math
import warnings

from soapkrr.cli.files import (
    check_structures,
    known_species,
    load_model,
    read_structures,
    structure_path,
    write_structures,
)
from soapkrr.cli.tables import Report
from soapkrr.errors import InputError


def relax(args) -> Report:
    from soapkrr.progress import track
    from soapkrr.threads import serial_blas

    output = structure_path(args.output, args.file, args.model)
    if not (math.isfinite(args.fmax) and args.fmax > 0):
        raise InputError(f"`--fmax` must be a positive finite number in eV/Å, received {args.fmax}.")
    model = load_model(args.model, args.device, args.threads, args.memory_limit)
    frames = read_structures(args.file)
    check_structures(frames, args.file, model.process_.descriptors, known_species(model))
    if args.cell:
        open_frames = [s for s, atoms in enumerate(frames) if not atoms.pbc.all()]
        if open_frames:
            raise InputError(f"{args.file}: frame {open_frames[0]} is not periodic in three directions, `--cell` cannot relax its cell.")
    numbered = track(enumerate(frames), len(frames), "relaxing", not args.quiet)
    with serial_blas(), warnings.catch_warnings():  # ASE's 3 × 3 matrices on two threads of a busy machine take 8 ms each
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # by 1e-12
        relaxed, rows = zip(*(_relax_one(model, atoms, s, args) for s, atoms in numbered), strict=True)
    write_structures(output, relaxed)
    left = [row["frame"] for row in rows if not row["converged"]]
    data = {"structures": list(rows), "all_converged": not left, "output": str(args.output)}
    return Report(data, _relax_table(rows, args), code=1 if left else 0)


def _relax_one(model, atoms, index: int, args):
    """Relax one structure: (structure with results, row of the table)."""
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    atoms = _without_labels(atoms, model.fitted_parameters_.get("observations"))
    atoms.calc = model.calculator(uncertainty=False)
    target = FrechetCellFilter(atoms) if args.cell else atoms
    try:
        optimizer = {"bfgs": BFGS, "fire": FIRE}[args.optimizer](target, logfile=None)
        converged = bool(optimizer.run(fmax=args.fmax, steps=args.steps))
        force = float(np.linalg.norm(target.get_forces(), axis=1).max())
        p = model.predict(atoms, uncertainty="energy")
    except InputError as error:
        raise InputError(f"{args.file}: the relaxation of frame {index} failed: {error}") from error
    results = {"energy": float(p.energy[0]), "forces": p.forces[0]}
    if np.isfinite(p.stress[0]).all():
        results["stress"] = p.stress[0]
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["energy_std"] = float(p.energy_std[0])
    row = {
        "frame": index,
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "energy_ev": results["energy"],
        "energy_std_ev": float(p.energy_std[0]),
        "fmax_ev_per_angstrom": force,
        "steps": int(optimizer.nsteps),
        "converged": converged,
    }
    return atoms, row


def _without_labels(atoms, observations):
    """A copy without the labels that the model was fitted to, which belong to the unrelaxed structure."""
    atoms = atoms.copy()
    if observations is not None:
        for name in (observations.energy, observations.forces, observations.stress, observations.virial):
            atoms.info.pop(name, None)
            atoms.arrays.pop(name, None)
    return atoms


def _relax_table(rows, args) -> str:
    width = max(7, *(len(row["formula"]) for row in rows))
    lines = [f"{'frame':>5}  {'formula':<{width}}  {'energy (eV)':>14}  {'± std (eV)':>10}  {'max force (eV/Å)':>16}  {'steps':>5}"]
    for row in rows:
        line = (
            f"{row['frame']:>5}  {row['formula']:<{width}}  {row['energy_ev']:>14.4f}  {row['energy_std_ev']:>10.4f}  "
            f"{row['fmax_ev_per_angstrom']:>16.4f}  {row['steps']:>5}"
        )
        lines.append(line if row["converged"] else f"{line}  not converged")
    left = sum(not row["converged"] for row in rows)
    state = f"{left} of {len(rows)} not converged in {args.steps} steps" if left else "all converged"
    return "\n".join([*lines, f"{args.output}: {len(rows)} structures, {state}"])
