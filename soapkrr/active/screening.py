"""Screening of many candidates by a model, with error bars: who is best, and which labels would tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ase import Atoms

from soapkrr.active.candidates import check_source, source_path, stream
from soapkrr.active.duplicates import Alike, composition, duplicates
from soapkrr.active.evaluation import Evaluation, groups
from soapkrr.active.ledger import Ledger
from soapkrr.active.ranking import Predicted, decide
from soapkrr.active.result import COLUMNS, Screening
from soapkrr.active.settings import Settings
from soapkrr.errors import InputError
from soapkrr.modelfile import check_writable, write_whole
from soapkrr.progress import track

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential


def screen(
    model: Potential, candidates: str | Path | Iterable[Atoms], output: str | Path | None = None, *, progress: bool = True, **settings
) -> Screening:
    """Predict, rank and compare candidates; name those whose labels narrow the decision most.

    Each candidate is predicted (relaxed first, with ``fmax``) and written to ``output`` at once. The same call goes on where one that was
    killed stopped, and ends at the same table. Entries that cannot be used are listed with the reason, the others are ranked.
    Near-duplicates are merged with the first of them.

    Parameters
    ----------
    model : a fitted potential.
    candidates : an extended XYZ file, an ASE database, a folder, any other file that ASE reads, or an iterable of structures.
    output : an ASE database to write, name.db; beside it name.csv and name.html, a page with pictures. None: nothing is kept.
    progress : draw a bar.
    settings : see `Settings`: references, observable, coverage, below, best, rank, next, merge, fmax, steps, cell.

    Returns
    -------
    A `Screening`: ``rows``, ``ranked``, ``failed``, ``next``.

    Raises
    ------
    InputError : a setting is out of range, candidates cannot be read at all or none of them can be predicted, or ``output`` is something
        else, or of another screening.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import SOAP, DotProduct, SparseGP
    >>> frames = [bulk("Cu", a=a) for a in (3.4, 3.5, 3.6, 3.7, 3.8)]
    >>> for atoms in frames:
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_forces(), atoms.get_stress()
    >>> model = SparseGP(SOAP(["Cu"], r_cut=4.5, n_max=3, l_max=2), DotProduct(2), n_sparse=5, threads=1).fit(frames)
    >>> found = screen(model, [bulk("Cu", a=a) for a in (3.45, 3.55, 3.65)], best=1, next=1)
    >>> found.ranked[0]["candidate"], len(found.next)
    (1, 1)
    """
    wanted = Settings.of(settings)
    check_source(candidates)
    if isinstance(candidates, (str, Path, Sequence)):
        there = sum(1 for _ in islice(stream(candidates), wanted.next))  # found before hours are spent
        if wanted.next > there:
            raise InputError(f"`next` must be at most {there}, the number of candidates, received {wanted.next}.")
    if output is None:
        with TemporaryDirectory() as folder:
            found = _screened(model, candidates, Path(folder) / "screening.db", wanted, progress)
            frames = dict(zip(which := [row["candidate"] for row in found.rows], found.structures(which), strict=True))
        return replace(found, output=None, _structures=lambda candidates: [frames[k].copy() for k in candidates])
    path = check_output(output, candidates)
    result = _screened(model, candidates, path, wanted, progress)
    text, page = result.to_csv(), result.to_html()
    write_whole(path.with_suffix(".csv"), lambda file: file.write(text.encode()))
    write_whole(path.with_suffix(".html"), lambda file: file.write(page.encode()))
    return result


def check_output(output: str | Path, candidates=None) -> Path:
    """Where a screening can be written; raises `InputError` otherwise."""
    path = check_writable(output)
    if path.suffix.lower() != ".db":
        raise InputError(f"`output` must be an ASE database, name.db, received {output}.")
    source = source_path(candidates)
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"`output` {output} is the file of candidates; choose another name.")
    for suffix in (".csv", ".html"):
        check_writable(path.with_suffix(suffix))
        if source == path.with_suffix(suffix):
            raise InputError(f"`output` {output}: {path.with_suffix(suffix)} is the file of candidates; choose another name.")
    return path


def identity(model: Potential, settings: Settings) -> dict[str, str]:
    """What the rows of candidates depend on."""
    text = repr([sorted(model.origin_.items()), sorted(model.noise_.items()), sorted(model.reference_energies_.items())])
    return {"model": f"sha:{hashlib.sha256(text.encode()).hexdigest()[:24]}", "settings": settings.of_rows()}


def _screened(model: Potential, candidates, path: Path, settings: Settings, progress: bool) -> Screening:
    ledger = Ledger(path, identity(model, settings))
    _evaluate(model, candidates, ledger, settings, progress)
    rows = [_row(row) for row in ledger.rows()]
    if all("failed" in row for row in rows):
        path.unlink()
        raise InputError(f"none of the {len(rows)} `candidates` can be predicted; the first: {rows[0]['source']}: {rows[0]['failed']}")
    decided = _decide(model, rows, ledger, settings)
    ledger.decide(decided)
    rows = [dict.fromkeys(COLUMNS) | row | decided.get(row["candidate"], {}) for row in rows]
    rows = [{name: row[name] for name in COLUMNS} for row in sorted(rows, key=_place)]
    k = f"among the best {settings.best}" if settings.below is None else f"below {settings.below:g}"

    def structures(which: Sequence[int]) -> list[Atoms]:
        return list(ledger.structures(which).values())

    return Screening(rows, settings.quantity.name, k, path, _structures=structures)


def _place(row: dict) -> tuple:
    """Ranked rows first, then merged, then failed ones."""
    return row["failed"] is not None, row["rank"] is None, row["rank"] or 0, row["candidate"]


def _evaluate(model: Potential, candidates, ledger: Ledger, settings: Settings, progress: bool) -> None:
    """Append the rows of all candidates that are not in the ledger yet."""
    evaluation, last = Evaluation(model, settings), -1
    total = len(candidates) if isinstance(candidates, Sequence) and not isinstance(candidates, str) else None
    for group in track(groups(stream(candidates), evaluation.most), total, "screening", progress):  # type: ignore[arg-type]
        last = group[-1].index
        known = [candidate for candidate in group if candidate.index in ledger.done]
        changed = [candidate.name for candidate in known if ledger.done[candidate.index] != candidate.digest]
        if changed:
            raise InputError(f"`candidates`: {changed[0]} is not what {ledger.path} has of it; choose another `output`.")
        new = [candidate for candidate in group if candidate.index not in ledger.done]
        if new:
            ledger.add(evaluation(new))
    if last + 1 < len(ledger.done):
        raise InputError(f"`candidates` has {last + 1} entries, {ledger.path} has {len(ledger.done)}; choose another `output`.")
    if last < 0:
        raise InputError("`candidates` is empty: at least one structure is needed.")


def _row(row) -> dict:
    """What a row of the database says, and what comparisons need."""
    found = {"formula": row.formula, "n_atoms": row.natoms, "energy": row.get("energy"), **row.key_value_pairs}
    for name in ("rank", "probability", "duplicate_of", "next_label"):
        found.pop(name, None)
    found["relaxed"] = bool(found["relaxed"]) if "relaxed" in found else None
    if "failed" not in found:
        found |= {"fingerprint": row.data["fingerprint"], "composition": composition(row.numbers)}
    return found


def _decide(model: Potential, rows: list[dict], ledger: Ledger, settings: Settings) -> dict[int, dict]:
    """{candidate: rank, probability, duplicate_of, next_label} of those that did not fail."""
    good = [row for row in rows if "failed" not in row]

    def structure(k: int) -> Atoms:
        return ledger.structures([good[k]["candidate"]])[good[k]["candidate"]]

    alike = Alike(model.process_.descriptors, settings.merge, structure)
    same = duplicates([row["fingerprint"] for row in good], [row["composition"] for row in good], alike) if settings.merge else {}
    kept = [k for k in range(len(good)) if k not in same]
    decision = decide(model, Predicted.of([good[k] for k in kept]), lambda which: [structure(kept[j]) for j in which], settings)
    decided = {
        good[kept[j]]["candidate"]: {"rank": r, "probability": float(decision.probability[j])} for r, j in enumerate(decision.order, 1)
    }
    for place, j in enumerate(decision.next, 1):
        decided[good[kept[j]]["candidate"]]["next_label"] = place
    return decided | {good[k]["candidate"]: {"duplicate_of": good[j]["candidate"]} for k, j in same.items()}
