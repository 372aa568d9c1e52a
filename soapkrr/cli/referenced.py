"""``soapkrr relax FILE --reference NAME``: relaxations by a reference calculator, of which few calls are made."""

from __future__ import annotations

import logging
from pathlib import Path

from soapkrr.cli.files import model_path, read_structures, structure_path
from soapkrr.cli.growing import TextFile, extended_xyz
from soapkrr.cli.relax import check_fmax, common_row, earlier
from soapkrr.cli.tables import Report
from soapkrr.errors import FAILURES, InputError, reason

logger = logging.getLogger(__name__)

REFERENCES = "a calculator that is called few times: emt, gfn1, gfn2, module:function, or a .json or .yaml file"


def add_arguments(sub) -> None:
    """Those that relaxations by a model do not have."""
    sub.add_argument("file", metavar="FILE", help="structures, extended XYZ or any format that ASE reads")
    sub.add_argument("--reference", required=True, metavar="REFERENCE", help=REFERENCES)
    sub.add_argument("--series", action="store_true", help="learn from one structure for the next")
    sub.add_argument("--prior", metavar="REFERENCE", help="a cheap calculator: what is learnt is the difference to it")
    sub.add_argument("--nearest", action="store_true", help="stay in the basin of each structure: short steps only")
    sub.add_argument("--save-model", metavar="OUT", help="what was learnt last, as a model file")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    sub.add_argument("--quiet", action="store_true", help="no progress bars and no warnings on standard error")


def relax_by_reference(args) -> Report:
    """Every structure in turn; in a series each with what was learnt from those before."""
    from soapkrr.active.calculators import reference_calculator

    output = structure_path(args.output, args.file)
    check_fmax(args.fmax)
    saved = None if args.save_model is None else model_path(args.save_model, args.file)
    reference, prior = reference_calculator(args.reference), None if args.prior is None else reference_calculator(args.prior)
    frames = read_structures(args.file, all_usable=False)
    done = earlier(output, frames, args)
    try:
        _relax_all(frames, done, output, saved, reference, prior, args)
    except KeyboardInterrupt:
        logger.warning("%d of %d structures are in %s; --resume goes on from there", len(done), len(frames), args.output)
        raise
    rows = [_row(done[s]) for s in sorted(done)]
    left = [row["frame"] for row in rows if not row["converged"]]
    data = {"structures": rows, "all_converged": not left, "calls": sum(row["calls"] for row in rows), "output": str(args.output)}
    return Report(data, _table(rows, args), code=1 if left else 0)


def _relax_all(frames, done: dict, output: Path, saved: Path | None, reference, prior, args) -> None:
    """Relax the structures that are left, and append each to the output and to ``done`` as it is done."""
    from soapkrr.progress import track

    left, model = [s for s in range(len(frames)) if s not in done], None
    with TextFile(output, None if done else "") as file:
        for s in track(left, len(left), "relaxing", not args.quiet):
            atoms, learnt = _relaxed(frames[s], reference, prior, model, args)
            atoms.info["relax_frame"] = s
            file.add(extended_xyz(atoms))
            done[s], model = atoms, learnt if args.series and learnt is not None else model
            if saved is not None and learnt is not None:
                learnt.save(saved)


def _relaxed(frame, reference, prior, model, args):
    """The relaxed structure with the reference's results, and the model; where that fails the structure as it was, with the reason."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.filters import FrechetCellFilter

    from soapkrr.active.relaxation import SurrogateRelaxation

    atoms, relaxation = frame.copy(), None
    atoms.calc = reference
    try:
        if args.cell and not atoms.pbc.all():
            raise InputError("it is not periodic in three directions, `--cell` cannot relax its cell.")
        target = FrechetCellFilter(atoms) if args.cell else atoms
        relaxation = SurrogateRelaxation(target, logfile=None, prior=prior if model is None else None, model=model, nearest=args.nearest)
        relaxation.run(fmax=args.fmax, steps=args.steps)
    except FAILURES as error:
        bare = frame.copy()
        bare.calc, bare.info["relax_failed"] = None, reason(error)
        bare.info["relax_calls"] = 0 if relaxation is None else relaxation.calls
        return bare, None
    done = atoms.copy()
    last, certificate = relaxation.references[-1], relaxation.certificate
    results = {"energy": last.energy, "forces": last.forces} | ({} if last.stress is None else {"stress": last.stress})
    done.calc = SinglePointCalculator(done, **results)
    done.info |= {"relax_fmax": certificate.fmax, "relax_calls": certificate.calls, "relax_converged": certificate.converged}
    told = {"relax_calls_without": certificate.calls_without, "relax_minimum": certificate.minimum}
    done.info |= {name: value for name, value in told.items() if value is not None}
    done.info |= {"relax_gain": certificate.gain, "relax_gain_std": certificate.gain_std}
    return done, relaxation.model


def _row(atoms) -> dict:
    info, done = atoms.info, "relax_failed" not in atoms.info
    return {
        **common_row(atoms),
        "fmax_ev_per_angstrom": float(info["relax_fmax"]) if done else None,
        "calls": int(info["relax_calls"]),
        "calls_without": int(info["relax_calls_without"]) if "relax_calls_without" in info else None,
        "gain_ev": float(info["relax_gain"]) if done else None,
        "gain_std_ev": float(info["relax_gain_std"]) if done else None,
        "converged": done and bool(info["relax_converged"]),
        "minimum": bool(info["relax_minimum"]) if "relax_minimum" in info else None,
        "failed": None if done else str(info["relax_failed"]),
    }


def _table(rows: list[dict], args) -> str:
    from soapkrr.display import text_table

    columns = ("frame", "formula", "energy (eV)", "max force (eV/Å)", "calls", "without", "left to gain (meV)", "")
    table = text_table(columns, [_cells(row) for row in rows], left=2)
    calls, left = sum(row["calls"] for row in rows), sum(not row["converged"] for row in rows)
    state = f"{left} of {len(rows)} not relaxed" if left else "all relaxed"
    return f"{table}\n{args.output}: {len(rows)} structures, {calls} calls of {args.reference}, {state}"


def _cells(row: dict) -> tuple[str, ...]:
    name = (str(row["frame"]), row["formula"])
    if row["failed"] is not None:
        return (*name, "", "", str(row["calls"]), "", "", f"failed: {row['failed']}")
    without = "" if row["calls_without"] is None else f"~{row['calls_without']}"
    gain = f"{1e3 * row['gain_ev']:.1f} ± {1e3 * row['gain_std_ev']:.1f}"
    remark = {True: "minimum", False: "no minimum", None: ""}[row["minimum"]] if row["converged"] else "not converged"
    return (*name, f"{row['energy_ev']:.4f}", f"{row['fmax_ev_per_angstrom']:.4f}", str(row["calls"]), without, gain, remark)
