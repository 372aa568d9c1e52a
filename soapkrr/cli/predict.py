"""``soapkrr predict``."""

from __future__ import annotations

from soapkrr.cli.files import model_and_structures, put_results, table_path, without_labels
from soapkrr.cli.tables import OUTSIDE, Report
from soapkrr.cli.writers import writer
from soapkrr.errors import FAILURES, InputError, reason

#: Columns of the table; the last but one only where asked for.
COLUMNS = (
    "id",
    "formula",
    "n_atoms",
    "energy_ev",
    "energy_std_ev",
    "energy_per_atom_ev",
    "energy_std_per_atom_ev",
    "forces_std_max_ev_per_angstrom",
    "outside",
    "failed",
)

#: Column of each name by which rows are sorted.
SORTED = {
    "id": "id",
    "formula": "formula",
    "energy": "energy_ev",
    "energy_std": "energy_std_ev",
    "energy_per_atom": "energy_per_atom_ev",
    "forces_std": "forces_std_max_ev_per_angstrom",
}

#: Atoms predicted at once; rows printed.
GROUP, SHOWN = 1024, 20


def predict(args) -> Report:
    output = table_path(args.output, args.file, args.model)
    if args.sort == "forces_std" and not args.forces_std:
        raise InputError("`--sort forces_std` needs `--forces-std`.")
    model, frames = model_and_structures(args, all_usable=False)
    columns = [name for name in COLUMNS if args.forces_std or not name.startswith("forces_std")]
    with writer(output, columns) as file:
        rows = _predict_all(model, frames, file, args)
        if all(row["failed"] for row in rows):
            output.unlink()
            raise InputError(f"{args.file}: none of the {len(rows)} structures can be predicted; the first: {rows[0]['failed']}")
        if args.sort:
            order = _order(rows, SORTED[args.sort])
            file.sort(order)
            rows = [rows[k] for k in order]
    failed = [row for row in rows if row["failed"]]
    data = {"structures": [{name: row[name] for name in columns} for row in rows], "n_failed": len(failed), "output": str(args.output)}
    return Report(data, _text(rows, failed, args), code=1 if failed else 0)


def _predict_all(model, frames, file, args) -> list[dict]:
    """Rows of all structures, each written as its group is done."""
    from soapkrr.progress import track
    from soapkrr.structures import split_by_atoms

    wanted = ("energy", "forces") if args.forces_std else ("energy",)
    rows = []
    groups = list(split_by_atoms(frames, GROUP))
    for first, group in track(groups, len(groups), "predicting", not args.quiet):
        for s, (atoms, p) in enumerate(zip(group, _predictions(model, group, wanted), strict=True), start=first):
            rows.append(_row(s, atoms, p))
            file.add(rows[-1], _with_results(atoms, p, model.fitted_parameters_.get("observations")))
    return rows


def _predictions(model, group, wanted) -> list:
    """The prediction of each structure or, where that fails, the reason; one by one where the group cannot be predicted at once."""
    try:
        whole = model.predict(group, uncertainty=wanted)
        return [whole.of([s]) for s in range(len(group))]
    except FAILURES as error:
        if len(group) == 1:
            return [reason(error)]
    return [_predictions(model, [atoms], wanted)[0] for atoms in group]


def _with_results(atoms, p, observations):
    """The structure with what was predicted of it, and without labels and results of its own."""
    atoms = without_labels(atoms, observations)
    if not isinstance(p, str):
        put_results(atoms, p)
    return atoms


def _row(index: int, atoms, p) -> dict:
    row = dict.fromkeys(COLUMNS) | {"id": index, "formula": atoms.get_chemical_formula(), "n_atoms": len(atoms)}
    if isinstance(p, str):
        return row | {"failed": p}
    energy, std, n = float(p.energy[0]), float(p.energy_std[0]), len(atoms)
    row |= {"energy_ev": energy, "energy_std_ev": std, "energy_per_atom_ev": energy / n, "energy_std_per_atom_ev": std / n}
    row |= {} if p.outside is None else {"outside": bool(p.outside[0])}
    return row | ({} if p.forces_std is None else {"forces_std_max_ev_per_angstrom": float(p.forces_std[0].max())})


def _order(rows: list[dict], column: str) -> list[int]:
    """Places of the rows, ascending in a column; those without a value last."""
    without = [k for k, row in enumerate(rows) if row[column] is None]
    return sorted((k for k, row in enumerate(rows) if row[column] is not None), key=lambda k: rows[k][column]) + without


def _text(rows: list[dict], failed: list[dict], args) -> str:
    """The first rows as printed, and every row that failed."""
    done = [row for row in rows if not row["failed"]]
    width = max(7, *(len(row["formula"]) for row in done[:SHOWN]))
    lines = [f"{'id':>6}  {'formula':<{width}}  {'energy (eV)':>14}  {'± std (eV)':>10}  {'eV/atom':>12}{_force_head(args)}"]
    lines += [_line(row, width) for row in done[:SHOWN]]
    lines += [f"... {len(done) - SHOWN} more"] if len(done) > SHOWN else []
    lines += [f"{row['id']:>6}  {row['formula']:<{width}}  failed: {row['failed']}" for row in failed[:SHOWN]]
    lines += [f"... {len(failed) - SHOWN} more failed"] if len(failed) > SHOWN else []
    return "\n".join([*lines, f"{args.output}: {len(rows)} structures{f', {len(failed)} failed' if failed else ''}"])


def _force_head(args) -> str:
    return "  largest force std (eV/Å)" if args.forces_std else ""


def _line(row: dict, width: int) -> str:
    force = row["forces_std_max_ev_per_angstrom"]
    line = f"{row['id']:>6}  {row['formula']:<{width}}  {row['energy_ev']:>14.4f}  {row['energy_std_ev']:>10.4f}"
    text = f"{line}  {row['energy_per_atom_ev']:>12.4f}" + ("" if force is None else f"  {force:>24.4f}")
    return f"{text}  {OUTSIDE}" if row["outside"] else text
