"""Any ASE calculator as prior mean: the model learns the difference to it."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from soapkrr.baselines.base import Baseline
from soapkrr.baselines.results import Result, Structure, calculated
from soapkrr.errors import InputError
from soapkrr.structures import Batch, Mean

#: Structures whose results are kept, or as many as were ever asked for at once; the oldest go first.
CACHE = 20_000


class ComputedBaseline(Baseline):
    """Prior means that come from a calculator, computed once per structure and kept: what failed too."""

    _results: OrderedDict[bytes, Result | str]

    @abstractmethod
    def _computed(self, structures: list[Structure], threads: int | None) -> Iterable[Result | str]:
        """The results of structures that are not kept, in their order; a text where there is none, as `results.calculated` gives it."""

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`; raises `InputError` for a structure that the calculator fails on."""
        found = self._found(list(Structure.all_of(batch)), threads=1)
        for s, result in enumerate(found):
            if isinstance(result, str):
                raise InputError(f"frame {batch.first + s}: {self._who} of `baseline` {result}.")
        energies, forces, strain = zip(*((r.energies, r.forces, r.strain) for r in found), strict=True)
        return Mean(np.concatenate(energies), np.concatenate(forces), np.array(strain))

    def prepare(self, frames: Sequence[Atoms], threads: int | None = None) -> dict[int, str]:
        """See `Baseline.prepare`."""
        found = self._found([Structure.of(atoms) for atoms in frames], threads)
        return {s: f"{self._who} of `baseline` {result}" for s, result in enumerate(found) if isinstance(result, str)}

    @property
    def _who(self) -> str:
        return "the calculator"

    def _found(self, structures: list[Structure], threads: int | None) -> list[Result | str]:
        """Results of all structures, each computed once."""
        here = {s.key: self._results[s.key] for s in structures if s.key in self._results}
        missing = list({s.key: s for s in structures if s.key not in here}.values())
        most = max(CACHE, len(structures))
        if missing:
            for structure, result in zip(missing, self._computed(missing, threads), strict=True):
                here[structure.key] = self._results[structure.key] = result
                if len(self._results) > most:
                    self._results.popitem(last=False)
        return [here[s.key] for s in structures]


@dataclass(frozen=True, eq=False)
class CalculatorBaseline(ComputedBaseline):
    """Energies, forces and stress of an ASE calculator, computed once per structure and kept.

    A structure is its positions, atomic numbers, cell and periodic directions; nothing else (charges, magnetic moments, `info`) reaches the
    calculator. Per-atom energies are the calculator's own where it has them, else equal shares. Copies share the calculator and the
    results. A calculator is not saved with a model: pass it again, ``soapkrr.load(path, baseline_calculator=...)``; one that is registered
    under a name (`soapkrr.baselines.register`) is.

    Parameters
    ----------
    calculator : an ASE calculator with energies and forces; with stress if the data have stresses.
    """

    calculator: BaseCalculator
    _results: OrderedDict = field(init=False, repr=False, default_factory=OrderedDict)

    def __post_init__(self):
        if not isinstance(self.calculator, BaseCalculator):
            raise InputError(f"`calculator` must be an ASE calculator, received {self.calculator!r}.")

    def __deepcopy__(self, memo) -> CalculatorBaseline:
        return self

    def _computed(self, structures: list[Structure], threads: int | None) -> Iterable[Result | str]:
        return (calculated(self.calculator, structure) for structure in structures)
