"""What a fitted estimator is, in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from soapkrr.display import Tabular
from soapkrr.regression.terms import Term

#: Units of noise levels of a potential.
NOISE_UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}


@dataclass(frozen=True, repr=False)
class Summary(Tabular):
    """Names and values of a fitted estimator, shown as a table.

    Attributes
    ----------
    estimator : its class.  rows : (name, value) as texts.
    """

    estimator: str
    rows: tuple[tuple[str, str], ...]

    def _columns(self) -> tuple[str, str]:
        return (self.estimator, "fitted")

    def _rows(self) -> tuple[tuple[str, str], ...]:
        return self.rows


def summary_of(model, terms: list[Term]) -> Summary:
    """The `Summary` of a fitted estimator that has these terms."""
    rows = [row for k, term in enumerate(terms) for row in _term(model, term, k, "" if len(terms) == 1 else f" {k + 1}")]
    rows.append(("observations", _counts(model.n_observations_)))
    rows.append(("noise", noise_text(model.noise_)))
    rows.append(("reference energies", ", ".join(f"{symbol} {energy:.6g}" for symbol, energy in model.reference_energies_.items())))
    rows += [("prior mean", repr(mean)) for mean in getattr(model, "prior_means_", ())]
    rows.append(("log likelihood", f"{model.log_likelihood_:.2f}"))
    rows += [(f"chosen: {choice.name}", f"{choice.value}: {choice.reason}") for choice in getattr(model, "choices_", ())]
    return Summary(type(model).__name__, tuple(rows))


def _term(model, term: Term, k: int, number: str) -> list[tuple[str, str]]:
    rows = [(f"descriptor{number}", repr(term.descriptor)), (f"kernel{number}", repr(term.kernel))]
    rows.append((f"signal{number}", f"{model.signals_[k]:.4g}"))
    points = getattr(model, "n_sparse_", None)
    points = points[k] if isinstance(points, list) else points if k == 0 else None
    return rows if points is None else [*rows, (f"sparse points{number}", _counts(points))]


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in numbers.items())


def noise_text(noise: Mapping[str, float] | float) -> str:
    """Noise levels with their units; of a property the number."""
    if not isinstance(noise, Mapping):
        return f"{noise:.4g}"
    return ", ".join(f"{kind} {level:.4g} {NOISE_UNITS[kind]}" for kind, level in noise.items())
