"""Tables for people: plain text on a terminal, HTML in a notebook."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from html import escape
from numbers import Real
from typing import Any

#: Rows that a long table shows, half of them from its end.
SHOWN = 12


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int | None = None) -> str:
    """Lines of a table: so many columns to the ``left``, the others to the right; None: the first, and of names and values both."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    left = (2 if len(columns) == 2 else 1) if left is None else left
    return "\n".join(_line(row, widths, left).rstrip() for row in (columns, *rows))


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    return "  ".join(
        f"{cell:<{width}}" if k < left else f"{cell:>{width}}" for k, (cell, width) in enumerate(zip(row, widths, strict=True))
    )


def html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as an HTML table; names that begin with blanks stay indented."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(cell: str) -> str:
    text = cell.lstrip()
    return "&ensp;" * (len(cell) - len(text)) + escape(text)


def html_lines(lines: Sequence[str]) -> str:
    """A paragraph of lines; nothing of none."""
    return f"<p>{'<br>'.join(map(escape, lines))}</p>" if lines else ""


def ends(n: int) -> list[int | None]:
    """Indices of the rows shown of n, None where some are left out."""
    half = SHOWN // 2
    return list(range(n)) if n <= SHOWN else [*range(half), None, *range(n - half, n)]


def value_text(value: float, std: float | None = None) -> str:
    """``-1.2345 ± 0.0021``, with four decimals; the standard deviation to two digits."""
    return f"{value:.4f}" if std is None else f"{value:.4f} ± {std:.2g}"


def counted(n: int, noun: str) -> str:
    """``1 structure``, ``12,000 structures``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


class Tabular(ABC):
    """Mixin of results that show as a table; subclasses give `_title`, `_columns`, `_rows` and perhaps `_notes`."""

    def _title(self) -> str:
        return ""

    @abstractmethod
    def _columns(self) -> Sequence[str]:
        """Names of the columns."""

    @abstractmethod
    def _rows(self) -> Sequence[Sequence[str]]:
        """Cells of each row."""

    def _notes(self) -> Sequence[str]:
        return ()

    def __repr__(self) -> str:
        return "\n".join([*filter(None, [self._title()]), text_table(self._columns(), self._rows()), *self._notes()])

    def _repr_html_(self) -> str:
        title = [self._title()] if self._title() else []
        return html_lines(title) + html_table(self._columns(), self._rows()) + html_lines(list(self._notes()))

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """What IPython prints, also of subclasses of `dict`."""
        printer.text(repr(self))


class Fielded(Tabular):
    """Mixin of results that are dataclasses (of ``repr=False``): a table with a line for each field, but for those of ``repr=False``."""

    def _title(self) -> str:
        return "" if type(self).__str__ is object.__str__ else str(self)

    def _columns(self) -> Sequence[str]:
        return (type(self).__name__, "")

    def _rows(self) -> Sequence[Sequence[str]]:
        shown: Any = self
        return [(f.name, brief(getattr(self, f.name))) for f in fields(shown) if f.repr]


def brief(value: Any) -> str:
    """A value in a cell: numbers to four digits, long ones cut."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {brief(part)}" for name, part in value.items())
    if isinstance(value, bool) or not isinstance(value, Real):
        text = "-" if value is None else " ".join(str(value).split())
        return text if len(text) <= 120 else f"{text[:117]}..."
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def only_public(name: str) -> Callable[[], list[str]]:
    """``__dir__`` of a module: its ``__all__``, else what it defines itself, without private names; tab completion shows that."""

    def names() -> list[str]:
        module = vars(sys.modules[name])
        own = (key for key, value in module.items() if getattr(value, "__module__", None) == name and not key.startswith("_"))
        return sorted(module.get("__all__") or own)

    return names
