"""What a check of a model found: a table of values, bounds and verdicts, and the curves behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from soapkrr.checking.figures import figures
from soapkrr.checking.page import Image, Section, Table, html_page
from soapkrr.display import Tabular, counted
from soapkrr.modelfile import check_writable, write_whole


@dataclass(frozen=True)
class Row:
    """One check: what, its value, the bound it is held to, and whether it holds; ``note`` says what was done."""

    group: str
    name: str
    value: float
    bound: str
    passed: bool
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Values (n,) of one or several quantities, by name, over x (n,): for a figure."""

    title: str
    x_label: str
    y_label: str
    x: np.ndarray
    lines: Mapping[str, np.ndarray]
    caption: str = ""


@dataclass(frozen=True, repr=False)
class ModelCheck(Tabular):
    """What `Potential.check` found; shows as a table.

    Attributes
    ----------
    model : what was checked, in a line.  rows : the checks.  curves : what figures are drawn of.  summary : of the model, as text.
    passed : whether all checks hold.
    """

    model: str
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = field(default=())
    summary: str = ""

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def to_dict(self) -> dict:
        """Plain numbers and strings."""
        return {
            "model": self.model,
            "passed": self.passed,
            "checks": [vars(row) | {"value": float(row.value), "passed": bool(row.passed)} for row in self.rows],
        }

    def to_html(self, path: str | os.PathLike) -> None:
        """Write one HTML page that needs nothing else: the table, the model, and figures where matplotlib is installed.

        Raises
        ------
        InputError : no file can be written there.
        """
        text = self._page().encode()
        write_whole(check_writable(path), lambda file: file.write(text))

    def images(self) -> list[Image]:
        """Figures of the curves; none where matplotlib is not installed."""
        return [Image(curve.title, png, curve.caption) for curve, png in zip(self.curves, figures(self.curves), strict=False)]

    def table(self) -> Table:
        """All checks, and what was done."""
        rows = [[row.group, row.name, _value(row), row.bound, _verdict_of(row), row.note] for row in self.rows]
        return Table(["", "check", "value", "bound", "", "what was done"], rows)

    def _page(self) -> str:
        checks = Section("Checks", (), [self.table()], self.images())
        return html_page(f"Check of {self.model}", [self._verdict()], [checks, Section("The model", verbatim=self.summary)])

    def _verdict(self) -> str:
        failed = sum(not row.passed for row in self.rows)
        return f"{counted(len(self.rows), 'check')}, {f'{failed} failed' if failed else 'all passed'}"

    def _title(self) -> str:
        return f"Check of {self.model}: {self._verdict()}"

    def _columns(self) -> Sequence[str]:
        return ["check", "value", "bound", ""]

    def _rows(self) -> Sequence[Sequence[str]]:
        return [[f"{row.group}: {row.name}", _value(row), row.bound, _verdict_of(row)] for row in self.rows]


def _verdict_of(row: Row) -> str:
    return "pass" if row.passed else "FAIL"


def _value(row: Row) -> str:
    return f"{row.value:.3g}{f' {row.unit}' if row.unit else ''}" if np.isfinite(row.value) else "-"
