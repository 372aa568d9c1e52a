"""Prior means by name, which files, command lines and other processes know too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from soapkrr.baselines.base import Baseline
from soapkrr.baselines.calculator import ComputedBaseline
from soapkrr.baselines.many import many
from soapkrr.baselines.results import FAILURES, Result, Structure
from soapkrr.baselines.sources import Source, adopt, is_own, source_of
from soapkrr.baselines.store import store_for
from soapkrr.errors import InputError
from soapkrr.structures import species_name


@dataclass(frozen=True)
class NamedBaseline(ComputedBaseline):
    """The calculator of a name: ``"gfn2"``, ``"d3:pbe"``, ``"gfn2:charge=1"``, or what `register` knows.

    Files hold the name, other processes make the calculator anew. Results are kept on a disk too (`keep_results`); where many are
    missing, processes share the work.

    Parameters
    ----------
    name : of it; after a colon, arguments of what makes the calculator, with commas between them.

    Raises
    ------
    InputError : the name is unknown.
    """

    name: str
    _source: Source = field(init=False, repr=False)
    _results: OrderedDict = field(init=False, repr=False, compare=False, default_factory=OrderedDict)

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise InputError(f"`name` must be that of a prior mean, such as 'gfn2', received {self.name!r}.")
        object.__setattr__(self, "_source", source_of(parsed(self.name)[0]))

    def __reduce__(self):
        return _again, (self.name, None if is_own(self._source) else self._source)

    def __deepcopy__(self, memo) -> NamedBaseline:
        return self

    def check(self) -> None:
        """See `Baseline.check`."""
        self._source.check()

    def prepare(self, frames: Sequence[Atoms], threads: int | None = None) -> dict[int, str]:
        """See `Baseline.prepare`; raises `InputError` for elements that the name does not know, and where its package is missing."""
        self.check()
        heaviest = self._source.heaviest
        for s, atoms in enumerate(frames):
            if heaviest is not None and atoms.numbers.max() > heaviest:
                unknown = species_name(atoms.numbers.max())
                raise InputError(f"frame {s}: `baseline`={self.name!r} knows elements up to {self._source.last_element}, not {unknown}.")
        return super().prepare(frames, threads)

    @property
    def heaviest(self) -> int | None:
        """The largest atomic number that it knows; None where that is not known."""
        return self._source.heaviest

    @property
    def _who(self) -> str:
        return repr(self.name)

    def _computed(self, structures: list[Structure], threads: int | None) -> Iterable[Result | str]:
        self.check()
        # One structure alone is one of very many: a step of a simulation, which the disk is spared.
        store = store_for(self.name, self._source.stamp) if len(structures) > 1 else None
        return many(self, structures, store, threads)

    def make_calculator(self) -> BaseCalculator:
        """A calculator of its own.

        Raises
        ------
        InputError : its package is not installed, or the arguments after the colon are none that it takes.
        """
        self.check()
        made = _from_factory(self.name, self._source)
        if not isinstance(made, BaseCalculator):
            raise InputError(f"`baseline`={self.name!r}: its factory must make an ASE calculator, received {made!r}.")
        return made


def _again(name: str, source: Source | None) -> Baseline:
    """In another process."""
    if source is not None:
        adopt(source)
    return named(name)


def named(text: str) -> Baseline:
    """The prior mean of a name; the same object whenever it is asked for, so that results are shared.

    Raises
    ------
    InputError : the name is unknown, or it takes no such arguments.
    """
    return _made(text, source_of(parsed(text)[0]))


@cache
def _made(text: str, source: Source) -> Baseline:
    if isinstance(source.factory, type) and issubclass(source.factory, Baseline):
        return _from_factory(text, source)
    return NamedBaseline(text)


def _from_factory(text: str, source: Source):
    _, arguments, options = parsed(text)
    try:
        return source.factory(*arguments, **options)
    except InputError:
        raise
    except (TypeError, *FAILURES) as error:
        raise InputError(f"`baseline`={text!r} cannot be made, {type(error).__name__}: {error}") from error


def parsed(text: str) -> tuple[str, list, dict]:
    """Name, arguments and options of ``"name:a,b=1"``.

    Examples
    --------
    >>> parsed("d3:pbe,damping=d3zero")
    ('d3', ['pbe'], {'damping': 'd3zero'})
    >>> parsed("gfn2:charge=-1")
    ('gfn2', [], {'charge': -1})
    """
    name, _, rest = text.partition(":")
    arguments, options = [], {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, given, value = part.partition("=")
        if given:
            options[key.strip()] = _value(value.strip())
        else:
            arguments.append(_value(part))
    return name.strip(), arguments, options


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
