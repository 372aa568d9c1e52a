"""The report of a model: everything that is known of it on one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from soapkrr.checking.findings import Findings, worst_first
from soapkrr.checking.left_out import as_prediction
from soapkrr.checking.model import check_model
from soapkrr.checking.page import Section, html_page
from soapkrr.checking.plain import quick_findings
from soapkrr.checking.report import ModelCheck
from soapkrr.checking.sections import choices_section, cost_section, data_section, errors_section, figures_section, table_of
from soapkrr.display import Tabular
from soapkrr.labels import read_labels
from soapkrr.metrics import UNIT_NAMES, UNITS, error_table
from soapkrr.modelfile import check_writable, write_whole
from soapkrr.prediction import Prediction
from soapkrr.progress import track
from soapkrr.regression.leave_out import LeaveOut
from soapkrr.structures import as_frames, split_by_atoms

#: Said of structures of the fit and of others.
LEFT_OUT, NOT_FITTED = "of the fit, each predicted without its own labels (leave-out)", "that were not fitted"

#: Atoms that are predicted between two steps of a bar.
GROUP = 2048


@dataclass(frozen=True, repr=False)
class ModelReport(Tabular):
    """What `Potential.report` found; shows as a table of errors and verdicts.

    Attributes
    ----------
    model : what it is of, in a line.  sections : of the page.  errors : `metrics.ErrorTable` of the structures given, else empty.
    check : `ModelCheck` of what any potential must do.
    """

    model: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    errors: dict
    check: ModelCheck

    def to_html(self, path: str | os.PathLike) -> None:
        """Write the page: one file that needs nothing else.

        Raises
        ------
        InputError : no file can be written there.
        """
        text = html_page(f"Report of {self.model}", self.lead, self.sections).encode()
        write_whole(check_writable(path), lambda file: file.write(text))

    def to_dict(self) -> dict:
        """Plain numbers and strings."""
        return {"errors": dict(self.errors), **self.check.to_dict(), "model": self.model}

    def _title(self) -> str:
        return "\n".join([f"Report of {self.model}", *self.lead])

    def _columns(self) -> Sequence[str]:
        return ["section", "what is in it"]

    def _rows(self) -> Sequence[Sequence[str]]:
        return [[section.title, _content(section)] for section in self.sections]


def _content(section: Section) -> str:
    parts = {"table": len([t for t in section.tables if t.rows]), "figure": len(section.images)}
    return ", ".join(f"{n} {noun}{'s' * (n > 1)}" for noun, n in parts.items() if n) or " ".join(section.lines)


def model_report(
    model: Any,
    frames: Atoms | list[Atoms] | None,
    left: LeaveOut | None,
    findings: Findings | None,
    progress: bool,
) -> ModelReport:
    """See `Potential.report`; ``left``: the leave-out, where ``frames`` are those of the fit."""
    observations = model.fitted_parameters_.get("observations")
    frames = None if frames is None else as_frames(frames)
    what = "none" if frames is None else LEFT_OUT if left is not None else NOT_FITTED
    name = f"{type(model).__name__} of {', '.join(model.reference_energies_)}"
    sections, errors = [data_section(model, frames, observations, what), choices_section(model)], {}
    if frames is not None:
        some, p = _predicted(model, frames, progress) if left is None else as_prediction(left, frames, observations)
        if _labelled(some, observations):
            errors = error_table(some, p, observations=observations)
            sections += [errors_section(some, p, observations, what), figures_section(model, some, p, observations)]
        found = findings or Findings(worst_first(quick_findings(frames, read_labels(frames, observations))), len(frames))
        sections.append(Section("Data check", [found._title()], [table_of(found)]))
    made = model.summary()
    check = check_model(model, None)
    sections.append(Section("Model check", [check._verdict()], [check.table()], check.images()))
    sections += [cost_section(model, frames or _alone(model)), Section("Model card", tables=[table_of(model.card)])]
    return ModelReport(name, tuple(_lead(model, errors, what, check, made)), tuple(sections), errors, check)


def _predicted(model: Any, frames: list[Atoms], progress: bool) -> tuple[list[Atoms], Prediction]:
    """Everything with standard deviations, group by group."""
    groups = list(split_by_atoms(frames, GROUP))
    bar = track(groups, len(groups), "predicting", progress)
    return frames, Prediction.concatenate([model.predict(group, uncertainty=True, progress=False) for _, group in bar])


def _labelled(frames: list[Atoms], observations: Any) -> bool:
    return bool(frames) and any(not label.empty for label in read_labels(frames, observations))


def _alone(model: Any) -> list[Atoms]:
    return [Atoms([symbol]) for symbol in model.reference_energies_]


def _lead(model: Any, errors: dict, what: str, check: ModelCheck, made: Any) -> list[str]:
    """The page in a few lines."""
    found = [f"{kind} {errors[key]:.3g} {UNIT_NAMES[kind]}" for kind, (unit, _) in UNITS.items() if (key := f"{kind}_mae_{unit}") in errors]
    lines = [f"Fitted {model.origin_['date']} by {model.origin_['software']}."] if model.origin_ else []
    lines += [f"Mean absolute errors of structures {what}: {', '.join(found)}."] if found else []
    return [*lines, f"Model: {check._verdict()}."]
