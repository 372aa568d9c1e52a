"""Reports of the commands: numbers for ``--json``, tables as text."""

from __future__ import annotations

from dataclasses import dataclass

#: Rows of the error table: kind → (unit as printed, key of the mean absolute error, key of the root mean square error, decimals).
ROWS = {
    "energy": ("meV/atom", "energy_mae_mev_per_atom", "energy_rmse_mev_per_atom", 2),
    "forces": ("eV/Å", "forces_mae_ev_per_angstrom", "forces_rmse_ev_per_angstrom", 4),
    "stress": ("GPa", "stress_mae_gpa", "stress_rmse_gpa", 3),
}

#: What an error table says of the error bars of a kind.
OF_COVERAGE = ("within_1_std", "within_2_std", "zero_by_symmetry")

#: Said of a structure that is outside the domain of a model.
OUTSIDE = "atoms closer than in the training data"

UNCERTAINTY = {"all": True, "energy": ("energy",), "none": False}


@dataclass(frozen=True)
class Report:
    """What a command has to say: ``data`` for ``--json``, ``text`` otherwise, and the exit code."""

    data: dict
    text: str
    code: int = 0


def errors(model, frames, uncertainty: str, show: bool, by: str | None = None, *, calibration: bool = False) -> dict:
    """Every key of the error table, None where there are no labels or no standard deviations; with ``by`` also {value: table} there.

    With ``calibration`` also the calibration table, None where no kind has both labels and standard deviations.
    """
    from soapkrr.prediction import Prediction
    from soapkrr.progress import track
    from soapkrr.structures import split_by_atoms

    groups = list(split_by_atoms(frames, 1024))
    bar = track(groups, len(groups), "predicting", show)
    prediction = Prediction.concatenate([model.predict(group, uncertainty=UNCERTAINTY[uncertainty]) for _, group in bar])
    outside = None if prediction.outside is None else int(prediction.outside.sum())
    observations = model.fitted_parameters_.get("observations")
    found = {**error_tables(frames, prediction, observations, by), "n_outside": outside}
    return found | ({"calibration": _calibration(frames, prediction, found, by, observations)} if calibration else {})


def _calibration(frames, prediction, found: dict, by: str | None, observations) -> dict | None:
    from soapkrr.metrics import calibration_table

    known = any(getattr(prediction, f"{kind}_std") is not None and found[row[1]] is not None for kind, row in ROWS.items())
    return calibration_table(frames, prediction, by, observations) if known else None


def error_tables(frames, prediction, observations=None, by: str | None = None) -> dict:
    """Every key of the error table of a prediction; with ``by`` also {value: table} there."""
    from soapkrr.metrics import error_table, members_by

    table = _complete(error_table(frames, prediction, observations=observations), frames)
    if len({z for atoms in frames for z in atoms.numbers}) > 1 and table["forces_rmse_ev_per_angstrom"] is not None:
        table["species"] = dict(error_table(frames, prediction, by="species", observations=observations))
    if by is None:
        return table
    parts, members = error_table(frames, prediction, by=by, observations=observations), members_by(frames, by)
    return {**table, "by": {name: _complete(part, [frames[s] for s in members[name]]) for name, part in parts.items()}}


def _complete(table: dict, frames) -> dict:
    keys = [key for kind, row in ROWS.items() for key in (*row[1:3], *(f"{kind}_{name}" for name in OF_COVERAGE))]
    return {**{key: table.get(key) for key in keys}, "n_structures": len(frames), "n_atoms": sum(map(len, frames))}


def error_text(title: str, errors: dict, by: str | None = None) -> str:
    """The error table as text, and that of the values of ``by``."""
    lines = [
        f"{title} ({errors['n_structures']} structures, {errors['n_atoms']} atoms)",
        f"  {'':<17}{'MAE':>10}{'RMSE':>10}{'within 1 std':>15}{'within 2 std':>15}",
    ]
    for kind, (unit, mae, rmse, decimals) in ROWS.items():
        cells = [_cell(errors[key], 10, f".{decimals}f") for key in (mae, rmse)]
        cells += [_cell(errors[f"{kind}_within_{k}_std"], 15, ".1%") for k in (1, 2)]
        lines.append(f"  {kind:<7}{unit:<10}{''.join(cells)}")
    zero = [f"{n:,} {kind}" for kind in ROWS if (n := errors[f"{kind}_zero_by_symmetry"])]
    if zero:
        lines.append(f"  not counted in the last two columns: {', '.join(zero)} components that are zero by symmetry")
    if errors.get("n_outside"):
        lines.append(f"  {errors['n_outside']} structures have atoms closer than any in the training data: outside the model's domain")
    lines += _species_lines(errors.get("species") or {})
    lines += _calibration_lines(errors["calibration"]) if errors.get("calibration") else []
    return "\n".join([*lines, *(_by_lines(errors["by"], by) if by else [])])


def _species_lines(parts: dict[str, dict]) -> list[str]:
    """One line for the forces on the atoms of each species, and which are worst."""
    _, mae, rmse, _ = ROWS["forces"]
    known = {symbol: part for symbol, part in parts.items() if rmse in part}
    cells = [f"{symbol} {part[mae]:.4f} / {part[rmse]:.4f}" for symbol, part in known.items()]
    lines = [f"  forces by species, MAE / RMSE in eV/Å: {', '.join(cells)}"] if cells else []
    return lines + ([_worst_line({symbol: part[rmse] for symbol, part in known.items()}, "forces")] if len(known) > 1 else [])


def _worst_line(errors: dict[str, float], what: str) -> str:
    """Which group has the largest error, beside the average."""
    worst, mean = max(errors, key=lambda name: errors[name]), sum(errors.values()) / len(errors)
    ratio = f", {errors[worst] / mean:.2f} × the average of the groups" if mean > 0 else ""
    return f"  largest {what} RMSE: {worst}{ratio}"


def _calibration_lines(table: dict) -> list[str]:
    """One line of each kind: coverage of the intervals, and scores of the standard deviations."""
    levels = (50, 68, 90, 95, 99)
    heads = "".join(f"{f'in {level} %':>9}" for level in levels)
    lines = ["", f"  {'intervals':<17}{heads}{'area':>7}{'ENCE':>7}{'NLL':>7}{'CRPS':>9}{'RMS std':>10}{'rank':>6}"]
    for kind, (unit, mae, *_) in ROWS.items():
        part = table.get(kind)
        if part is not None:
            suffix = mae.removeprefix(f"{kind}_mae_")
            cells = [_cell(part.get(f"coverage_{level}"), 9, ".1%") for level in levels]
            scores = (("miscalibration_area", 7, ".3f"), ("ence", 7, ".2f"), ("nll", 7, ".2f"), (f"crps_{suffix}", 9, ".3g"))
            scores += ((f"sharpness_{suffix}", 10, ".3g"), ("rank_correlation", 6, ".2f"))
            lines.append(f"  {kind:<7}{unit:<10}{''.join(cells)}{''.join(_cell(part.get(key), *form) for key, *form in scores)}")
    if table.get("n_novel"):
        lines.append(f"  {table['n_novel']} of the structures have surroundings unlike the training data: novelty above 1")
    return lines


def _by_lines(parts: dict[str, dict], by: str) -> list[str]:
    """One line for each value of ``by``: mean absolute errors, and within one standard deviation."""
    width = max(len(by), *map(len, parts))
    heads = "".join(f"{f'{kind} {unit}':>17}{'1 std':>7}" for kind, (unit, *_) in ROWS.items())
    lines = ["", f"  {by:<{width}}{'structures':>12}{'atoms':>8}{heads}"]
    for name, part in parts.items():
        cells = [
            _cell(part[mae], 17, f".{decimals}f") + _cell(part[f"{kind}_within_1_std"], 7, ".0%")
            for kind, (_, mae, _, decimals) in ROWS.items()
        ]
        lines.append(f"  {name:<{width}}{part['n_structures']:>12}{part['n_atoms']:>8}{''.join(cells)}")
    for kind, (_, _, rmse, _) in ROWS.items():
        known = {name: part[rmse] for name, part in parts.items() if part[rmse] is not None}
        lines += [_worst_line(known, kind)] if len(known) > 1 else []
    return lines


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{form}}"


def told(choices) -> list[dict]:
    """What a fit chose and why, for ``--json``."""
    return [{"name": c.name, "value": c.value if _plain(c.value) else repr(c.value), "reason": c.reason} for c in choices]


def _plain(value) -> bool:
    return value is None or isinstance(value, (str, int, float, list, dict))


def counts(numbers: dict[str, int]) -> str:
    """``Si 500, O 800``."""
    return ", ".join(f"{symbol} {n}" for symbol, n in numbers.items())
