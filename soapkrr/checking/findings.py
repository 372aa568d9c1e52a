"""What a check of labelled structures found."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from soapkrr.display import Tabular, counted
from soapkrr.errors import DataWarning, LabelError

#: How bad a finding is: labels that are wrong; labels or structures to look at; what limits a model without being wrong.
SEVERITIES = ("error", "warning", "note")

#: Frames that a table names.
NAMED = 6


@dataclass(frozen=True)
class Finding:
    """One thing that is odd about labelled structures.

    Attributes
    ----------
    severity : ``"error"``, ``"warning"`` or ``"note"``.  what : what is found, in words.
    frames : indices in the list that was given, empty where it is all of them.
    evidence : {name: number} it rests on.  advice : what to do.  code : the line of Python that does it.
    """

    severity: str
    what: str
    frames: tuple[int, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""
    code: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.where()})" if self.frames else self.what

    def where(self, names: Sequence[str] | None = None) -> str:
        """The frames in words, by their names where they have some."""
        if not self.frames:
            return "all"
        shown = [str(s) if names is None else names[s] for s in self.frames[:NAMED]]
        more = f" and {len(self.frames) - NAMED} more" if len(self.frames) > NAMED else ""
        return f"frame{'s' * (len(self.frames) > 1)} {', '.join(shown)}{more}"

    def to_dict(self) -> dict:
        """Plain numbers, strings and lists."""
        evidence = {name: float(value) for name, value in self.evidence.items()}
        return {**vars(self), "frames": [int(s) for s in self.frames], "evidence": evidence}


@dataclass(frozen=True, repr=False)
class Findings(Tabular):
    """What `soapkrr.check` found: a list of `Finding`, worst first, that shows as a table.

    Attributes
    ----------
    findings : worst first.  n_structures : structures looked at.  names : what each structure is called, None: its index.
    clean : whether there is neither an error nor a warning.
    """

    findings: tuple[Finding, ...]
    n_structures: int
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self):
        return iter(self.findings)

    def __getitem__(self, index):
        return self.findings[index]

    @property
    def clean(self) -> bool:
        return all(finding.severity == "note" for finding in self.findings)

    def to_dict(self) -> dict:
        """For JSON; frames have their names beside their indices where they have some."""
        rows = [finding.to_dict() for finding in self.findings]
        if self.names is not None:
            rows = [{**row, "names": [self.names[s] for s in row["frames"]]} for row in rows]
        return {"n_structures": self.n_structures, "clean": self.clean, "findings": rows}

    def _title(self) -> str:
        numbers = [counted(sum(f.severity == severity for f in self.findings), severity) for severity in SEVERITIES]
        return f"Check of {counted(self.n_structures, 'labelled structure')}: {', '.join(numbers)}"

    def _columns(self) -> list[str]:
        return ["", "what, where, evidence, and what to do"]

    def _rows(self) -> list[list[str]]:
        return [row for finding in self.findings for row in self._lines(finding)] or [["", "nothing"]]

    def _lines(self, finding: Finding) -> list[list[str]]:
        evidence = ", ".join(f"{name} {value:.4g}" for name, value in finding.evidence.items())
        where = finding.where(self.names)
        lines = [
            finding.what,
            f"  {where[0].upper()}{where[1:]}{': ' * bool(evidence)}{evidence}.",
            f"  {finding.advice}",
            f"  {finding.code}",
        ]
        return [[finding.severity if k == 0 else "", line] for k, line in enumerate(lines) if line.strip()]


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; within each as they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def warn_of(findings: Sequence[Finding]) -> None:
    """Say errors and warnings in one `DataWarning`."""
    said = [f"{finding}. {finding.advice}" for finding in findings if finding.severity != "note"]
    if said:
        warnings.warn(f"the data are suspicious: {' '.join(said)} (`soapkrr.check` says more.)", DataWarning, stacklevel=4)


@contextmanager
def fatal(strict: bool) -> Iterator[None]:
    """With ``strict``, a `DataWarning` inside is raised as a `LabelError`."""
    if not strict:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        try:
            yield
        except DataWarning as warning:
            raise LabelError(f"{warning} (`strict` makes this an error.)") from warning
