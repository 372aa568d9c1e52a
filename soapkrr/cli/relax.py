"""``soapkrr relax``."""

from __future__ import annotations

import io
import logging
import math
import warnings
from pathlib import Path

from soapkrr.cli.files import model_and_structures, put_results, structure_path, without_labels
from soapkrr.cli.growing import TextFile, complete_records, drop_rest, extended_xyz
from soapkrr.cli.tables import OUTSIDE, Report
from soapkrr.errors import FAILURES, InputError, reason

logger = logging.getLogger(__name__)


def relax(args) -> Report:
    output = structure_path(args.output, args.file, args.model)
    check_fmax(args.fmax)
    model, frames = model_and_structures(args, all_usable=False)
    unusable = _unusable(model, frames, args)
    rows = {s: _row(atoms) for s, atoms in earlier(output, frames, args).items()}
    left = [s for s in range(len(frames)) if s not in rows]
    try:
        _relax_all(model, frames, left, unusable, output, rows, args)
    except KeyboardInterrupt:
        logger.warning("%d of %d structures are in %s; --resume goes on from there", len(rows), len(frames), args.output)
        raise
    rows = [rows[s] for s in sorted(rows)]
    failed = [row["frame"] for row in rows if row["failed"]]
    open_rows = [row["frame"] for row in rows if not row["converged"]]
    data = {"structures": rows, "all_converged": not open_rows, "n_failed": len(failed), "output": str(args.output)}
    return Report(data, _relax_table(rows, args), code=1 if open_rows else 0)


def _relax_all(model, frames, left: list[int], unusable: dict[int, str], output: Path, rows: dict[int, dict], args) -> None:
    """Relax the structures that are left, and append each to the output and to ``rows`` as it is done."""
    from soapkrr.progress import track
    from soapkrr.threads import serial_blas

    with TextFile(output, None if rows else "") as file, serial_blas(), warnings.catch_warnings():
        # ASE's 3 × 3 matrices on two threads of a busy machine take 8 ms each, hence one thread of BLAS
        warnings.filterwarnings("ignore", "logm result may be inaccurate")  # by 1e-12
        for s in track(left, len(left), "relaxing", not args.quiet):
            atoms = _relaxed(model, frames[s], unusable.get(s), args)
            atoms.info["relax_frame"] = s
            file.add(extended_xyz(atoms))
            rows[s] = _row(atoms)


def _unusable(model, frames, args) -> dict[int, str]:
    """{place: why the structure cannot be relaxed}; raises where that is so for all of them."""
    from soapkrr.cli.files import check_structures, known_species

    known, found = known_species(model), {}
    for s, atoms in enumerate(frames):
        try:
            check_structures([atoms], args.file, model.process_.descriptors, known, first=s)
            if args.cell and not atoms.pbc.all():
                raise InputError(f"{args.file}: frame {s} is not periodic in three directions, `--cell` cannot relax its cell.")
        except InputError as error:
            found[s] = str(error)
    if len(found) == len(frames):
        raise InputError(found[0])
    if found:
        s = min(found)
        logger.warning("%d of %d structures cannot be relaxed, the others are; the first: %s", len(found), len(frames), found[s])
    return {s: reason(InputError(text.removeprefix(f"{args.file}: "))) for s, text in found.items()}


def _relaxed(model, atoms, unusable: str | None, args):
    """The relaxed structure with its results; where that fails the structure as it was, with the reason."""
    bare = without_labels(atoms, model.fitted_parameters_.get("observations"))
    if unusable is None:
        try:
            return _optimised(model, bare.copy(), args)
        except FAILURES as error:
            unusable = reason(error)
    bare.info["relax_failed"] = unusable
    return bare


def _optimised(model, atoms, args):
    import numpy as np
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    atoms.calc = model.calculator(uncertainty=False)
    target = FrechetCellFilter(atoms) if args.cell else atoms
    optimizer = {"bfgs": BFGS, "fire": FIRE}[args.optimizer](target, logfile=None)
    converged = bool(optimizer.run(fmax=args.fmax, steps=args.steps))
    force = float(np.linalg.norm(target.get_forces(), axis=1).max())
    p = model.predict(atoms, uncertainty="energy")
    put_results(atoms, p)
    told = {"energy_std": float(p.energy_std[0]), "relax_fmax": force, "relax_steps": int(optimizer.nsteps), "relax_converged": converged}
    atoms.info.update(told if p.outside is None else told | {"outside": bool(p.outside[0])})
    return atoms


def check_fmax(fmax: float) -> None:
    """Raise where no relaxation can end there."""
    if not (math.isfinite(fmax) and fmax > 0):
        raise InputError(f"`--fmax` must be a positive finite number in eV/Å, received {fmax}.")


def common_row(atoms) -> dict:
    """What rows of all relaxations begin with."""
    return {
        "frame": int(atoms.info["relax_frame"]),
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "energy_ev": None if "relax_failed" in atoms.info else float(atoms.get_potential_energy()),
    }


def _row(atoms) -> dict:
    """The row of the table of a structure as it stands in the output."""
    info, done = atoms.info, "relax_failed" not in atoms.info
    return {
        **common_row(atoms),
        "energy_std_ev": float(info["energy_std"]) if done else None,
        "fmax_ev_per_angstrom": float(info["relax_fmax"]) if done else None,
        "steps": int(info["relax_steps"]) if done else None,
        "converged": bool(info["relax_converged"]) if done else False,
        "outside": bool(info["outside"]) if done and "outside" in info else None,
        "failed": None if done else str(info["relax_failed"]),
    }


def earlier(output: Path, frames, args) -> dict:
    """{place: structure} of what an earlier run left in the output, with ``--resume``; without, raises where that is part of a run."""
    if not output.exists() or output.stat().st_size == 0:
        return {}
    size = complete_records(output)
    done = {int(atoms.info.get("relax_frame", -1)): atoms for atoms in _read_part(output, size)}
    if not args.resume:
        if done and -1 not in done and len(done) < len(frames):
            raise InputError(
                f"{output} holds {len(done)} of {len(frames)} structures of a run that was interrupted: `--resume` goes on with it; remove "
                "the file to start again."
            )
        return {}
    if not all(0 <= s < len(frames) and list(atoms.numbers) == list(frames[s].numbers) for s, atoms in done.items()):
        raise InputError(f"`--resume`: {output} is not of a run of `soapkrr relax` on {args.file}; choose another name for the output.")
    drop_rest(output, size)
    return done


def _read_part(path: Path, size: int) -> list:
    """The structures in the first bytes of an extended XYZ file."""
    from ase.io import read

    with open(path, "rb") as file:
        text = file.read(size).decode()
    return read(io.StringIO(text), ":", format="extxyz") if text else []


def _relax_table(rows, args) -> str:
    width = max(7, *(len(row["formula"]) for row in rows))
    lines = [f"{'frame':>5}  {'formula':<{width}}  {'energy (eV)':>14}  {'± std (eV)':>10}  {'max force (eV/Å)':>16}  {'steps':>5}"]
    lines += [_relax_line(row, width) for row in rows]
    failed = sum(row["failed"] is not None for row in rows)
    left = sum(not row["converged"] for row in rows) - failed
    states = [f"{failed} failed"] if failed else []
    states += [f"{left} of {len(rows)} not converged in {args.steps} steps"] if left else []
    return "\n".join([*lines, f"{args.output}: {len(rows)} structures, {', '.join(states) or 'all converged'}"])


def _relax_line(row: dict, width: int) -> str:
    if row["failed"] is not None:
        return f"{row['frame']:>5}  {row['formula']:<{width}}  failed: {row['failed']}"
    line = (
        f"{row['frame']:>5}  {row['formula']:<{width}}  {row['energy_ev']:>14.4f}  {row['energy_std_ev']:>10.4f}  "
        f"{row['fmax_ev_per_angstrom']:>16.4f}  {row['steps']:>5}"
    )
    remarks = [] if row["converged"] else ["not converged"]
    return "  ".join([line, *remarks, *([OUTSIDE] if row["outside"] else [])])
