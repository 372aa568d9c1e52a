"""Structures that are left out of a fit to measure errors on: a random part of a file, or each of several parts once."""

from __future__ import annotations

from soapkrr.cli.tables import UNCERTAINTY, error_tables
from soapkrr.errors import InputError


def split(frames, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """(Places of the structures to fit, places of those left out), both ascending; isolated atoms are always fitted."""
    drawn = _drawn(frames, seed)
    n = max(1, round(fraction * len(drawn)))
    if len(drawn) - n < 1:
        raise InputError(f"`--test-fraction` {fraction:g} of {len(drawn)} structures leaves none to fit.")
    out = sorted(drawn[:n])
    left_out = set(out)
    return [s for s in range(len(frames)) if s not in left_out], out


def _drawn(frames, seed: int) -> list[int]:
    """Places of all structures but isolated atoms, in random order."""
    import numpy as np

    places = [s for s, atoms in enumerate(frames) if len(atoms) > 1 or atoms.pbc.any()]
    return [places[k] for k in np.random.default_rng(seed).permutation(len(places))]


def cross_validated(plan, frames, args) -> dict:
    """Errors of predictions of every structure by a fit to the other parts, which finds noise and signal anew; ``folds``: of each part."""
    from soapkrr.prediction import Prediction
    from soapkrr.progress import track

    folds = parts(frames, args.cv, args.seed)
    order, predictions, tables = [], [], []
    observations = plan.model.observations
    for out in track(folds, len(folds), "cross-validation", not args.quiet):
        left_out, members = set(out), [frames[s] for s in out]
        model = plan.fit([atoms for s, atoms in enumerate(frames) if s not in left_out], check=False)
        predictions.append(model.predict(members, uncertainty=UNCERTAINTY[args.uncertainty]))
        tables.append(error_tables(members, predictions[-1], observations))
        order += out
    table = error_tables([frames[s] for s in order], Prediction.concatenate(predictions), observations, args.by)
    return {**table, "k": len(folds), "folds": tables}


def parts(frames, k: int, seed: int) -> list[list[int]]:
    """Places of the structures of each of k parts; every species of a part is in the others too."""
    drawn = _drawn(frames, seed)
    if len(drawn) < k:
        raise InputError(f"`--cv` {k}: there are only {len(drawn)} structures.")
    folds = [sorted(drawn[part::k]) for part in range(k)]
    for number, out in enumerate(folds):
        check_species(frames, out, f"`--cv` {k}: part {number + 1}")
    return folds


def check_species(frames, out: list[int], where: str) -> None:
    """Raise where the structures ``out`` have a species that no other structure has."""
    from soapkrr.structures import species_name

    left_out = set(out)
    known = {int(z) for s, atoms in enumerate(frames) if s not in left_out for z in atoms.numbers}
    for s in out:
        new = sorted({int(z) for z in frames[s].numbers} - known)
        if new:
            raise InputError(
                f"{where} has species {species_name(new[0])} (frame {s}), which no structure outside it has; try another `--seed`."
            )
