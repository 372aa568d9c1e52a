"""The ``baseline`` argument: which reference energies and prior means it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np
from ase.data import atomic_numbers

from soapkrr.baselines.base import Baseline
from soapkrr.baselines.calculator import CalculatorBaseline, ComputedBaseline
from soapkrr.baselines.named import named
from soapkrr.baselines.scaled import ScaledBaseline
from soapkrr.errors import InputError

#: Ways to find reference energies in the data.
KEYWORDS = ("isolated", "least-squares")

#: In `soapkrr.fit`: with a prior mean where left-out structures are predicted better with it; and which one where none is named.
AUTO, SUGGESTED = "auto", "gfn2"


def split_baseline(baseline) -> tuple[Mapping[str, float] | str | None, tuple[Baseline, ...]]:
    """The reference energies and the prior means of a ``baseline`` argument: one of them, or a list with at most one of the former.

    A string is a way to find reference energies, of `KEYWORDS`, or the name of a prior mean (`named.named`).
    """
    parts = [_meant(part) for part in parts_of(baseline)]
    means = tuple(part for part in parts if isinstance(part, Baseline))
    references = [part for part in parts if not isinstance(part, Baseline)]
    if len(references) > 1:
        raise InputError(f"`baseline` holds several kinds of reference energies, {references}; give one, and any number of prior means.")
    twice = [mean for k, mean in enumerate(means) if mean in means[:k]]
    if twice:
        raise InputError(f"`baseline` holds {twice[0]!r} twice; give it once.")
    calculators = [mean for mean in means if isinstance(mean, CalculatorBaseline)]
    if len(calculators) > 1:
        raise InputError("`baseline` holds several calculators; combine them in one (`ase.calculators.mixing.SumCalculator`).")
    return references[0] if references else None, means


def parts_of(baseline) -> list:
    """The parts of a ``baseline`` argument, names as they are."""
    return list(baseline) if isinstance(baseline, (list, tuple)) else [baseline]


def _meant(part):
    return named(part) if isinstance(part, str) and part not in KEYWORDS else part


def automatic_name(baseline) -> str | None:
    """The prior mean that a ``baseline`` leaves open: `SUGGESTED` for ``"auto"``, NAME for ``"auto:NAME"``; None where it leaves none open.

    Raises
    ------
    InputError : it holds another one, a named prior mean or a calculator too; or the name is unknown.
    """
    parts = parts_of(baseline)
    open_ones = [part for part in parts if _is_open(part)]
    if not open_ones:
        return None
    rest = without_auto(parts)
    given = [mean for mean in split_baseline(rest)[1] if is_computed(mean)]
    if given or len(open_ones) > 1:
        other = repr(given[0] if given else open_ones[1])
        raise InputError(f"`baseline` holds {open_ones[0]!r} and {other}: which prior mean it is can be left open or given, not both.")
    name = open_ones[0].partition(":")[2] or SUGGESTED
    named(name)  # raises where it is unknown
    return name


def without_auto(baseline):
    """The rest of a ``baseline``, None where there is nothing else."""
    rest = [part for part in parts_of(baseline) if not _is_open(part)]
    return rest if len(rest) > 1 else rest[0] if rest else None


def with_mean(baseline, mean: Baseline | str) -> list:
    """A ``baseline`` with one more prior mean."""
    return [*(part for part in parts_of(baseline) if part is not None), mean]


def is_computed(mean: Baseline) -> bool:
    """Whether a prior mean is that of a calculator."""
    return isinstance(mean, (ComputedBaseline, ScaledBaseline))


def _is_open(part) -> bool:
    return isinstance(part, str) and part.partition(":")[0] == AUTO


def check_baseline(baseline) -> None:
    """Raise `InputError` unless this could be the ``baseline`` argument of some data."""
    reference, _ = split_baseline(baseline)
    if isinstance(reference, Mapping):
        bad = [symbol for symbol, energy in reference.items() if symbol not in atomic_numbers or not _is_finite(energy)]
        if bad:
            raise InputError(f"`baseline` must give elements a finite energy each, received {bad}.")
    elif not (reference is None or (isinstance(reference, str) and reference in KEYWORDS)):
        raise InputError(
            f"`baseline` must be a mapping, 'isolated', 'least-squares', the name of a prior mean or None, received {reference!r}."
        )


def _is_finite(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
