"""What a check of a model found: a table of values, bounds and verdicts, and the curves behind them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from soapkrr.checking.figures import figures
from soapkrr.display import Tabular, counted
from soapkrr.modelfile import check_writable, write_whole

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}table{border-collapse:collapse}"
    "td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid #ddd}.fail{color:#b00020;font-weight:bold}.pass{color:#1b6e3a}"
    "figure{display:inline-block;margin:1em 1em 1em 0;vertical-align:top}figcaption{max-width:30em;font-size:.9em;color:#444}"
    "pre{background:#f6f6f6;padding:1em;overflow-x:auto}"
)


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

    def _page(self) -> str:
        title = f"Check of {escape(self.model)}"
        rows = "".join(_html_row(row) for row in self.rows)
        head = "".join(f"<th>{name}</th>" for name in ("", "check", "value", "bound", "", "what was done"))
        drawn = "".join(map(_html_figure, self.curves, figures(self.curves)))
        return (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head><body>'
            f"<h1>{title}</h1><p>{escape(self._verdict())}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"{drawn}<h2>The model</h2><pre>{escape(self.summary)}</pre></body></html>\n"
        )

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


def _html_figure(curve: Curve, png: str) -> str:
    image = f'<img alt="{escape(curve.title)}" src="data:image/png;base64,{png}">'
    return f"<figure>{image}<figcaption>{escape(curve.caption)}</figcaption></figure>"


def _html_row(row: Row) -> str:
    cells = [row.group, row.name, _value(row), row.bound]
    verdict = f'<td class="{"pass" if row.passed else "fail"}">{_verdict_of(row)}</td>'
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}{verdict}<td>{escape(row.note)}</td></tr>"
