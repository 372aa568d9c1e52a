"""What a fit without knobs chose and why, as a table, and what it says of a choice that does not suit the data."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ase import Atoms

from soapkrr.display import Tabular, text_table
from soapkrr.errors import InputError
from soapkrr.labels import Observations, read_labels
from soapkrr.metrics import UNIT_NAMES, UNITS
from soapkrr.structures import Batch, as_frames, species_name


@dataclass(frozen=True)
class Choice:
    """One thing that `soapkrr.fit` chose: its name, its value and the reason."""

    name: str
    value: object
    reason: str


class Choices(Tabular, list):
    """A list of `Choice` that shows as a table."""

    def _columns(self) -> tuple[str, str, str]:
        return ("chosen", "value", "why")

    def _rows(self) -> list[tuple[str, str, str]]:
        return [row for choice in self for row in _rows(choice)]


def choices_text(choices: list[Choice]) -> str:
    """Names, values and reasons in columns; of a mapping each part in a row of its own."""
    return text_table(("chosen", "value", "why"), [row for c in choices for row in _rows(c)], left=3)


def _rows(choice: Choice) -> list[tuple[str, str, str]]:
    value = choice.value
    if isinstance(value, Mapping):
        value = [f"{name} {part}" for name, part in value.items()]
        first, *others = value or [""]
        return [(choice.name, first, choice.reason), *(("", other, "") for other in others)]
    return [(choice.name, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value), choice.reason)]


def test_rows(errors: Mapping | None) -> list[Choice]:
    """Mean absolute errors of the test structures, as rows of the table."""
    errors = errors or {}
    found = {kind: errors[name] for kind, (unit, _) in UNITS.items() if (name := f"{kind}_mae_{unit}") in errors}
    where = f"mean absolute error of {errors.get('n_structures')} structures that were not fitted"
    return _error_rows("test", found, where)


def left_out_rows(errors: Mapping[str, float]) -> list[Choice]:
    """Root mean square errors of structures left out of the fit, {kind: eV/atom, eV/Å, eV/Å³}, in the units of tables."""
    found = {kind: factor * errors[kind] for kind, (_, factor) in UNITS.items() if kind in errors}
    return _error_rows("left out", found, "root mean square error of structures left out of the fit")


def calibration_row(calibration, groups: int | None = None) -> Choice:
    """What standard deviations and intervals are learnt from: a `Calibration`, or None, where they are the posterior's own; ``groups``: of
    structures that were left out together, None: each by itself.
    """
    if calibration is None:
        return Choice(
            "calibration", "none", "standard deviations are the posterior's: too few structures, labels or memory for a leave-out"
        )
    types = f" and configuration type ({', '.join(calibration.config_types)})" if calibration.config_types else ""
    reason = f"standard deviations are those of errors, intervals conformal, by species{types}"
    n = calibration.structures
    value = f"{n} left-out structures" if groups in (None, n) else f"{n} structures, left out in {groups} groups"
    return Choice("calibration", value, reason)


def _error_rows(name: str, errors: Mapping[str, float], where: str) -> list[Choice]:
    return [Choice(f"{name}, {kind}", float(f"{error:.3g}"), f"{UNIT_NAMES[kind]}, {where}") for kind, error in errors.items()]


def checked_test(test, frames: list[Atoms], observations: Observations | None) -> list[Atoms]:
    """Test structures, once it is certain that their errors can be computed after the fit."""
    test, known = as_frames(test), {int(z) for atoms in frames for z in atoms.numbers}
    try:
        Batch.from_atoms(test)
        for index, atoms in enumerate(test):
            new = sorted({int(z) for z in atoms.numbers} - known)
            if new:
                raise InputError(f"frame {index}: species {species_name(new[0])} is not in the training data.")
        read_labels(test, observations)
    except InputError as error:
        raise type(error)(f"`test`: {error}") from error
    return test


@contextmanager
def advice(chosen: Container[str]):
    """Say after a message that names a parameter which `fit` chooses how it can be given."""
    try:
        yield
    except InputError as error:
        named = [name for name in re.findall(r"`([a-z_]+)", str(error)) if name in chosen]
        if not named:
            raise
        raise type(error)(f"{error} (`soapkrr.fit` chooses `{named[0]}`; to give it, make a `GaussianProcess` or `SparseGP`.)") from error
