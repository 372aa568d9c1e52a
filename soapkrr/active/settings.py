"""What a screening is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real

from ase import Atoms

from soapkrr.active.quantity import Quantity
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.prediction import check_coverage
from soapkrr.uncertainty.observables import Observable

#: What candidates can be ranked by.
RANKED = ("value", "lower", "probability")


@dataclass(frozen=True, eq=False)
class Settings:
    """What is computed of each candidate, what is decided, and how candidates are ranked.

    Parameters
    ----------
    references, observable : see `Quantity`; None: the energy per atom.
    coverage : of the intervals.
    below : a threshold of the value; the decision is who is below. None: who is among the best.
    best : k, the number of lowest values that are looked for.
    rank : ``"value"``, ``"lower"`` (lower end of the interval) or ``"probability"`` (of being below, or among the best).
    next : how many structures to name whose labels narrow the decision most.
    merge : atoms of two structures are alike where their descriptors differ by less than this part of their length; structures of which all
        atoms are alike are one. 0: nothing is merged.
    fmax : largest force, eV/Å, down to which each candidate is relaxed with the model first; None: as it is.  steps : at most so many.
    cell : relax cells too.

    Raises
    ------
    InputError : a value is out of range.
    """

    references: Mapping[str, float] | Sequence[Atoms] | None = None
    observable: Callable[[Atoms], Observable] | None = None
    coverage: float = 0.9
    below: float | None = None
    best: int = 10
    rank: str = "value"
    next: int = 0
    merge: float = 0.01
    fmax: float | None = None
    steps: int = 200
    cell: bool = False

    def __post_init__(self):
        check_coverage(self.coverage)
        if self.below is not None and not _finite(self.below):
            raise InputError(f"`below` must be a finite number, the threshold of the value, or None, received {self.below!r}.")
        if self.rank not in RANKED:
            raise InputError(f"`rank` must be one of {RANKED}, received {self.rank!r}.")
        for name, least in (("best", 1), ("next", 0), ("steps", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise InputError(f"`{name}` must be an integer of at least {least}, received {value!r}.")
        if not (_finite(self.merge) and 0 <= self.merge < 1):
            raise InputError(f"`merge` must be at least 0 and below 1, such as 0.01, received {self.merge!r}.")
        if self.fmax is not None and not (_finite(self.fmax) and self.fmax > 0):
            raise InputError(f"`fmax` must be a positive finite number in eV/Å, or None, received {self.fmax!r}.")
        if self.cell and self.fmax is None:
            raise InputError("`cell` relaxes cells too: give `fmax`, the largest force of a relaxed structure.")
        _ = self.quantity

    @cached_property
    def quantity(self) -> Quantity:
        """What candidates are ranked by."""
        return Quantity(self.references, self.observable)

    @classmethod
    def of(cls, given: Mapping) -> Settings:
        """From keyword arguments; raises `InputError` for one that does not exist."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise InputError(f"`{name}` is no setting of a screening{f'; did you mean `{near[0]}`?' if near else f': {known}'}")
        return cls(**given)

    def of_rows(self) -> str:
        """What the rows of single candidates depend on; the rest can be changed when a screening goes on."""
        return repr([self.quantity.name, _told(self.references), self.coverage, self.fmax, self.steps if self.fmax else None, self.cell])


def _finite(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _told(references) -> object:
    if references is None or isinstance(references, Mapping):
        return references if references is None else sorted((symbol, float(e)) for symbol, e in references.items())
    return [(atoms.get_chemical_formula(), round(float(Quantity([atoms]).offset(atoms)), 9)) for atoms in references]
