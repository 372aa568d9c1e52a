"""What a prior mean offers, and how several are taken off labels and put back on predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr.errors import InputError
from soapkrr.labels.labels import Labels
from soapkrr.specification import Specification
from soapkrr.structures import Batch, Mean, split_by_atoms

#: Ways to find reference energies in the data.
KEYWORDS = ("isolated", "least-squares")

#: Atoms evaluated at once when labels are reduced.
GROUP = 4096


class Baseline(Specification, ABC):
    """A prior mean of the energy: the model learns the difference to it."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> Mean:
        """The prior mean of a batch; NaN strain where the stress is not known."""


def split_baseline(baseline) -> tuple[Mapping[str, float] | str | None, tuple[Baseline, ...]]:
    """The reference energies and the prior means of a ``baseline`` argument: one of them, or a list with at most one of the former."""
    parts = list(baseline) if isinstance(baseline, (list, tuple)) else [baseline]
    means = tuple(part for part in parts if isinstance(part, Baseline))
    references = [part for part in parts if not isinstance(part, Baseline)]
    if len(references) > 1:
        raise InputError(f"`baseline` holds several kinds of reference energies, {references}; give one, and any number of prior means.")
    calculators = [mean for mean in means if hasattr(mean, "calculator")]
    if len(calculators) > 1:
        raise InputError("`baseline` holds several calculators; combine them in one (`ase.calculators.mixing.SumCalculator`).")
    return references[0] if references else None, means


def check_baseline(baseline) -> None:
    """Raise `InputError` unless this could be the ``baseline`` argument of some data."""
    reference, _ = split_baseline(baseline)
    if isinstance(reference, Mapping):
        bad = [symbol for symbol, energy in reference.items() if symbol not in atomic_numbers or not _is_finite(energy)]
        if bad:
            raise InputError(f"`baseline` must give elements a finite energy each, received {bad}.")
    elif not (reference is None or (isinstance(reference, str) and reference in KEYWORDS)):
        raise InputError(f"`baseline` must be a mapping, 'isolated', 'least-squares' or None, received {reference!r}.")


def _is_finite(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def total(means: Sequence[Baseline], batch: Batch) -> Mean:
    """Sum of prior means; zeros for none."""
    result = Mean(np.zeros(batch.n_atoms), np.zeros((batch.n_atoms, 3)), np.zeros((len(batch), 6)))
    for mean in means:
        result = result.plus(mean.evaluate(batch))
    return result


def subtract(means: Sequence[Baseline], frames: list[Atoms], labels: list[Labels]) -> list[Labels]:
    """Labels less the prior means: what is left to learn."""
    if not means:
        return labels
    reduced = []
    for first, group in split_by_atoms(frames, GROUP):
        batch = Batch.from_atoms(group, first)
        mean = total(means, batch)
        for s, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            own = Mean(mean.energies[a:b], mean.forces[a:b], mean.strain[s] / batch.volumes[s])
            reduced.append(_reduced(labels[first + s], own, first + s))
    return reduced


def _reduced(label: Labels, mean: Mean, index: int) -> Labels:
    if label.stress is not None and not np.isfinite(mean.strain).all():
        raise InputError(f"frame {index} has a stress, but `baseline` gives none; take another calculator or leave out the stress labels.")
    return replace(
        label,
        energy=label.energy - mean.energies.sum(),
        forces=None if label.forces is None else label.forces - mean.forces,
        stress=None if label.stress is None else label.stress - mean.strain,
    )
