"""Numbers with bars: what every observable returns, shows, and is asked next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import numpy as np
from ase import Atoms
from scipy.special import ndtri

from soapkrr.display import html_lines, html_table
from soapkrr.errors import InputError
from soapkrr.observables.source import Source, scaled
from soapkrr.prediction import check_coverage
from soapkrr.structures import as_frames
from soapkrr.uncertainty import Observable

#: How a standard deviation was found.
JOINT, DELTA, SAMPLES, CERTAIN = "joint posterior", "delta method", "samples", "calculator"


@dataclass(frozen=True)
class Next:
    """The candidate whose labels would narrow a number most.

    Attributes
    ----------
    index : of the candidate.  std : of the number as it is.  after : with the labels at hand.
    ratios : (n_candidates,) std after over before of each candidate alone.
    """

    index: int
    std: float
    after: float
    unit: str
    ratios: np.ndarray

    def __str__(self) -> str:
        return f"candidate {self.index}: ± {self.std:.2g} becomes ± {self.after:.2g} {self.unit}".rstrip()


@dataclass(frozen=True, eq=False, repr=False)
class Number:
    """A value with its standard deviation and unit.

    Attributes
    ----------
    name, value, unit : ``float(number)`` is the value.
    std : calibrated where the model is: the posterior's, with the derivatives by energies, by forces and by stresses each times the ratio
        of calibrated to posterior standard deviations of such labels near the structures that the number is made of (`Source.ratios`): one
        factor for each kind, so that correlations, which decide what a difference is worth, stay as they are. None of a calculator.
    posterior_std : of the posterior itself.
    method : ``"joint posterior"`` (linear in energies, forces and stresses: exact), ``"delta method"`` (linearised at the mean; a minimum
        or a root is involved), ``"samples"`` of the posterior, or ``"calculator"``, which has no bars.
    linear : the number as a linear functional at the mean, in its unit; None where there is none.  flag : what is wrong with it, or ``""``.
    """

    name: str
    value: float
    unit: str
    std: float | None
    posterior_std: float | None
    method: str
    linear: Observable | None
    source: Source
    ratios: Mapping[str, float]
    flag: str = ""

    def __float__(self) -> float:
        return float(self.value)

    def interval(self, coverage: float = 0.9) -> tuple[float, float]:
        """Limits of the central interval of a Gaussian with this standard deviation."""
        check_coverage(coverage)
        half = float(ndtri(0.5 * (1 + coverage))) * self._known_std()
        return self.value - half, self.value + half

    def next(self, candidates: Atoms | Sequence[Atoms], labels: Sequence[str] | None = None) -> Next:
        """Which single candidate's labels would narrow this number most, and by how much.

        By ``model.variance_drop`` with the number as it is linearised; no label is computed.

        Parameters
        ----------
        candidates : structures.  labels : what a calculation gives, as in `variance_drop`; None: everything.

        Raises
        ------
        InputError : the number has no linearisation, or a candidate cannot be described.
        """
        std, model = self._known_std(), self.source.model
        if self.linear is None or not self.linear.terms:
            raise InputError(f"{self.name} has no linearisation to say what labels would do; ask for a number by another method.")
        options = {} if labels is None else {"labels": labels}
        found = model.variance_drop(as_frames(candidates), [scaled(self.linear, dict(self.ratios))], **options)
        whole = found.variance[0] if found.variance[0] > 0 else 1.0
        ratios = np.sqrt(np.maximum(1 - found.drop[:, 0] / whole, 0.0))
        best = int(np.argmin(ratios))
        return Next(best, std, std * float(ratios[best]), self.unit, ratios)

    def _known_std(self) -> float:
        if self.std is None:
            raise InputError(f"{self.name} comes from a calculator, which has no error bars; give a fitted potential.")
        return self.std

    def __str__(self) -> str:
        text = f"{self.name} = {with_std(self.value, self.std)} {self.unit}".rstrip()
        return text + f" ({self.flag})" * bool(self.flag)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_lines([str(self)])


def with_std(value: float, std: float | None) -> str:
    """``152 ± 4``: the standard deviation to one digit, two where the first is 1; without one six digits of the value."""
    if std is None or not isfinite(std) or std <= 0:
        return f"{value:.6g}" if not std else f"{value:.6g} ± {std:.1g}"
    place = floor(log10(std))
    digits = (1 if std / 10**place < 1.95 else 0) - place
    rounded, shown = round(value, digits), round(std, digits)
    return f"{rounded:.{max(digits, 0)}f} ± {shown:.{max(digits, 0)}f}"


class Result:
    """Mixin of results: numbers by name, a table, a figure, and which label next; subclasses are frozen and have ``numbers``.

    ``result["C11"]`` and ``result.C11`` are a `Number`.
    """

    numbers: Mapping[str, Number]

    def __getitem__(self, name: str) -> Number:
        if name not in self.numbers:
            raise InputError(f"there is no number {name!r} here, only {', '.join(self.numbers)}.")
        return self.numbers[name]

    def __getattr__(self, name: str) -> Number:
        known = self.__dict__.get("numbers", {})
        if name in known:
            return known[name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __dir__(self):
        return [*super().__dir__(), *(name for name in self.numbers if name.isidentifier())]

    def __iter__(self) -> Iterator[Number]:
        return iter(self.numbers.values())

    def __len__(self) -> int:
        return len(self.numbers)

    def next(self, candidates: Atoms | Sequence[Atoms], name: str | None = None) -> Next:
        """`Number.next` of the number ``name``; None: of the first."""
        if not self.numbers:
            raise InputError(f"this {type(self).__name__} holds no number to narrow.")
        return self[next(iter(self.numbers)) if name is None else name].next(candidates)

    def plot(self, ax=None):
        """The numbers with their bars, as matplotlib axes; needs the extra ``plot``."""
        from soapkrr.plot.observables import bars

        return bars(self, ax)

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [[n.name, with_std(n.value, n.std), n.unit, n.method, n.flag] for n in self]
        columns = ["", "value ± std", "unit", "by", "flag"]
        flagged = any(n.flag for n in self)
        return html_table(columns if flagged else columns[:-1], rows if flagged else [row[:-1] for row in rows])


@dataclass(frozen=True)
class Entry:
    """A number that is about to get its bar: ``linear`` has the value as its mean."""

    name: str
    value: float
    unit: str
    linear: Observable
    flag: str = ""


def bars_of(source: Source, linear: Sequence[Observable]) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Calibrated and posterior covariance (n, n) of linear functionals, and the factors between them."""
    kinds = sorted({kind for one in linear for _, _, kind, _ in one.terms})
    if not kinds:
        return np.zeros((len(linear),) * 2), np.zeros((len(linear),) * 2), {}
    structures = {s.key: s.atoms for one in linear for _, s, _, _ in one.terms}
    ratios = source.ratios(list(structures.values()), kinds)
    parts = [Observable(tuple(term for term in one.terms if term[2] == kind)) for kind in kinds for one in linear]
    C = source.model.posterior(parts).covariance.reshape(len(kinds), len(linear), len(kinds), len(linear))
    factors = np.array([ratios[kind] for kind in kinds])
    return np.einsum("k,kalb,l->ab", factors, C, factors), C.sum(axis=(0, 2)), ratios


def numbers_of(source: Source, entries: Sequence[Entry], method: str) -> dict[str, Number]:
    """{name: `Number`} with bars of one joint posterior."""
    if source.certain:
        return {e.name: Number(e.name, e.value, e.unit, None, None, CERTAIN, None, source, {}, e.flag) for e in entries}
    calibrated, posterior, ratios = bars_of(source, [e.linear for e in entries])
    std, raw = (np.sqrt(np.maximum(np.diagonal(C), 0.0)) for C in (calibrated, posterior))
    return {
        e.name: Number(e.name, e.value, e.unit, float(s), float(r), method, e.linear, source, ratios, e.flag)
        for e, s, r in zip(entries, std, raw, strict=True)
    }
