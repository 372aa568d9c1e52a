"""A prior mean with a factor in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from ase import Atoms

from soapkrr.baselines.base import Baseline
from soapkrr.baselines.named import named
from soapkrr.errors import InputError
from soapkrr.structures import Batch, Mean


@dataclass(frozen=True)
class ScaledBaseline(Baseline):
    """c · E(structure) of another prior mean, and its derivatives.

    Parameters
    ----------
    mean : a prior mean, or the name of one.  factor : c.

    Raises
    ------
    InputError : the name is unknown, or the factor is no finite number.

    Examples
    --------
    >>> from soapkrr.baselines import ScaledBaseline
    >>> ScaledBaseline("zbl", 1.1).base
    ZBL(r_inner=None, r_outer=None)
    """

    mean: Baseline | str
    factor: float

    def __post_init__(self):
        if not (isinstance(self.factor, Real) and np.isfinite(self.factor)):
            raise InputError(f"`factor` must be a finite number, received {self.factor!r}.")
        if not isinstance(self.mean, (str, Baseline)):
            raise InputError(f"`mean` must be a prior mean or the name of one, received {self.mean!r}.")
        self.base  # noqa: B018  raises where the name is unknown

    def __reduce__(self):
        return _again, (self.mean, self.factor, self.base)

    @property
    def base(self) -> Baseline:
        """The prior mean without the factor."""
        return named(self.mean) if isinstance(self.mean, str) else self.mean

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`."""
        return Mean(*(self.factor * part for part in self.base.evaluate(batch)))

    def prepare(self, frames: Sequence[Atoms], threads: int | None = None) -> dict[int, str]:
        """See `Baseline.prepare`."""
        return self.base.prepare(frames, threads)

    def check(self) -> None:
        """See `Baseline.check`."""
        self.base.check()


def _again(mean: Baseline | str, factor: float, base: Baseline) -> ScaledBaseline:
    """In another process, which knows the name of ``base`` once that is there."""
    return ScaledBaseline(mean, factor)
