"""What a prior mean offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from soapkrr.specification import Specification
from soapkrr.structures import Batch, Mean


class Baseline(Specification, ABC):
    """A prior mean of the energy: the model learns the difference to it."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> Mean:
        """The prior mean of a batch; NaN strain where the stress is not known."""

    def prepare(self, frames: Sequence[Atoms], threads: int | None = None) -> dict[int, str]:
        """Compute ahead what `evaluate` will be asked for; {index: reason} of the structures that have no prior mean."""
        return {}

    def check(self) -> None:
        """Raise `InputError` where something that `evaluate` needs is not installed."""
        return None


def total(means: Sequence[Baseline], batch: Batch) -> Mean:
    """Sum of prior means; zeros for none."""
    result = Mean(np.zeros(batch.n_atoms), np.zeros((batch.n_atoms, 3)), np.zeros((len(batch), 6)))
    for mean in means:
        result = result.plus(mean.evaluate(batch))
    return result
