"""The model card: what a model is, of which data, for what, and where not to trust it; what its maker writes is saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soapkrr.display import Tabular, counted
from soapkrr.errors import InputError, ModelFileError
from soapkrr.estimators.summary import noise_text
from soapkrr.metrics import UNIT_NAMES, UNITS
from soapkrr.regression.domain import MARGIN

#: What a card should say that only people know, and what for.
ASKED = {
    "data": "where the structures come from",
    "level of theory": "code, functional, settings",
    "references": "what to cite",
    "licence": "of model and data",
    "intended use": "materials, temperatures, pressures",
}

#: Longest text of an entry, characters.
LONGEST = 10_000


class ModelCard(Tabular, dict):
    """{entry: text} of a fitted model: what its maker wrote (``given``), and what it knows itself. Shows as a table.

    Set ``model.card = {"data": "…", "licence": "CC-BY-4.0"}``; `ASKED` lists what a reader will look for.
    """

    def __init__(self, given: Mapping[str, str], known: Mapping[str, str]):
        super().__init__({**given, **{name: text for name, text in known.items() if name not in given}})
        self.given = dict(given)

    def __reduce__(self):
        return ModelCard, (self.given, {name: text for name, text in self.items() if name not in self.given})

    @property
    def missing(self) -> list[str]:
        """Entries that only people can write, and nobody has."""
        return [name for name in ASKED if name not in self.given]

    def _title(self) -> str:
        return "Model card"

    def _columns(self) -> tuple[str, str]:
        return ("entry", "")

    def _rows(self) -> list[tuple[str, str]]:
        return [*self.items(), *((name, f"not stated: {ASKED[name]}") for name in self.missing)]


def checked_card(given: Any, error: type[InputError] = InputError) -> dict[str, str]:
    """What a user, or a file, states; raises ``error`` unless it is texts by name."""
    if not isinstance(given, Mapping) or not all(isinstance(part, str) for item in given.items() for part in item):
        raise error(f"`card` must be texts by name, such as {{'licence': 'CC-BY-4.0'}}, received {given!r:.200}.")
    if any(len(text) > LONGEST or not name.strip() for name, text in given.items()):
        raise error(f"`card`: names must not be empty, and texts of at most {LONGEST:,} characters.")
    return dict(given)


def restored_card(state: Any) -> dict[str, str]:
    """From a model file, where there is one."""
    return {} if state is None else checked_card(state, ModelFileError)


def card_of(model: Any, given: Mapping[str, str]) -> ModelCard:
    """The card of a fitted estimator."""
    species = ", ".join(model.reference_energies_)
    numbers = ", ".join(f"{n:,} {kind}" for kind, n in model.n_observations_.items())
    known = {
        "model": f"{type(model).__name__} of {species}; labels fitted: {numbers}",
        "made with": ", ".join(model.origin_.get(name, "not stated") for name in ("software", "date")),
        "data SHA-256": model.origin_.get("data_sha256", "not stated"),
        "descriptors": "; ".join(" ".join(repr(d).split()) for d in model.process_.descriptors),
        "noise": noise_text(model.noise_),
        "errors": _errors(model),
        "where not to trust it": _limits(model, species),
    }
    return ModelCard(given, {name: text for name, text in known.items() if text})


def _errors(model: Any) -> str:
    """Of structures left out of the fit, and of test structures."""
    left, test = getattr(model, "left_out_errors_", None) or {}, getattr(model, "test_errors_", None) or {}
    rows = [f"{kind} {UNITS[kind][1] * error:.3g} {UNIT_NAMES[kind]}" for kind, error in left.items()]
    parts = [f"root mean square of left-out structures: {', '.join(rows)}"] if rows else []
    found = [f"{kind} {test[key]:.3g} {UNIT_NAMES[kind]}" for kind, (unit, _) in UNITS.items() if (key := f"{kind}_mae_{unit}") in test]
    parts += [f"mean absolute, of {counted(test['n_structures'], 'test structure')}: {', '.join(found)}"] if found else []
    return "; ".join(parts)


def _limits(model: Any, species: str) -> str:
    """What is outside of the data."""
    limits = [f"other elements than {species}"]
    domain = getattr(model, "domain_", None)
    if domain is not None:
        pairs = ", ".join(f"{pair} {MARGIN * r:.2f} Å" for pair, r in domain.shortest.items() if domain.counts[pair])
        limits += [f"pairs of atoms closer than {pairs} (`prediction.outside`)"] if pairs else []
    calibrated = getattr(model, "calibration_", None) is not None
    limits.append(
        "atoms of novelty above 1 (`prediction.novelty`)" if calibrated else "standard deviations are the posterior's, uncalibrated"
    )
    return "; ".join(limits)
