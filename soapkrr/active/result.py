"""The table of a screening: on a terminal, in a notebook, as CSV and as a page with pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ase import Atoms

from soapkrr.active.picture import svg
from soapkrr.display import Tabular, counted, ends
from soapkrr.export import data_frame

#: Columns of the table.
COLUMNS = ("rank", "candidate", "source", "formula", "n_atoms", "value", "std", "lower", "upper", "probability", "novelty", "flags",
           "next_label", "duplicate_of", "relaxed", "relax_steps", "failed")  # fmt: skip

#: Rows of the page that have a picture; further ones are in the table only.
PICTURES = 100

STYLE = (
    "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse;font-size:90%}td,th{padding:.2em .7em;text-align:right;"
    "border-bottom:1px solid #ddd}td.l,th.l{text-align:left}tr.n{background:#fff6d8}"
)


@dataclass(frozen=True, eq=False, repr=False)
class Screening(Tabular):
    """Candidates in the order of their rank, then those merged with others, then those that failed.

    Attributes
    ----------
    rows : a dictionary of `COLUMNS` for each candidate, None where there is nothing to say.
    quantity : what the value is.  decision : what the probability is of.
    output : the database, None where it was not asked for.
    """

    rows: list[dict[str, Any]]
    quantity: str
    decision: str
    output: Path | None = None
    _structures: Callable[[Sequence[int]], list[Atoms]] = field(default=lambda candidates: [], kw_only=True)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """Rows of distinct candidates, best first."""
        return [row for row in self.rows if row["rank"] is not None]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Rows of candidates that could not be read or predicted, each with the reason."""
        return [row for row in self.rows if row["failed"] is not None]

    @property
    def next(self) -> list[int]:
        """Candidates whose labels narrow the decision most, in the order in which they were picked."""
        return [row["candidate"] for row in sorted((r for r in self.rows if r["next_label"]), key=lambda r: r["next_label"])]

    def structures(self, candidates: Sequence[int]) -> list[Atoms]:
        """Structures of candidates, as they were predicted (relaxed, if asked for), with the predictions as results."""
        return self._structures(candidates)

    def to_csv(self) -> str:
        """The table as comma-separated values."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([["" if row[name] is None else row[name] for name in COLUMNS] for row in self.rows])
        return text.getvalue()

    def to_dataframe(self):
        """`pandas.DataFrame` of the table. Raises `InputError` without pandas."""
        return data_frame({name: [row[name] for row in self.rows] for name in COLUMNS})

    def to_html(self) -> str:
        """A page that needs nothing else, with pictures of the first structures."""
        shown, failed = self.ranked[:PICTURES], self.failed
        pictures = [svg(atoms) for atoms in self.structures([row["candidate"] for row in shown])]
        body = "".join(
            f"<tr{' class=n' if row['next_label'] else ''}><td>{picture}</td>{_cells(row)}</tr>"
            for row, picture in zip(shown, pictures, strict=True)
        )
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", *self._columns()))
        left_out = len(self.ranked) - len(shown)
        notes = [f"{counted(left_out, 'candidate')} of lower rank are in the table (.csv) and in the database."] if left_out else []
        listed = "".join(f"<tr><td class=l>{escape(row['source'])}</td><td class=l>{escape(row['failed'])}</td></tr>" for row in failed)
        return (
            f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>Screening</title><style>{STYLE}</style></head><body>"
            f"<h1>{escape(self._title())}</h1><p>{'<br>'.join(map(escape, [*self._notes(), *notes]))}</p>"
            f"<table><tr>{head}</tr>{body}</table>"
            + (f"<h2>{counted(len(failed), 'candidate')} failed</h2><table>{listed}</table>" if failed else "")
            + "</body></html>\n"
        )

    def _title(self) -> str:
        merged = sum(row["duplicate_of"] is not None for row in self.rows)
        told = [counted(len(self.ranked), "candidate")] + ([f"{merged:,} merged with them"] if merged else [])
        return f"Screening by {self.quantity}: {', '.join(told + ([f'{len(self.failed):,} failed'] if self.failed else []))}"

    def _columns(self) -> list[str]:
        return ["rank", "candidate", "source", "formula", "value ± std", "interval", "probability", "flags", "label"]

    def _rows(self) -> list[list[str]]:
        rows = self.ranked
        return [["…"] * len(self._columns()) if k is None else cells(rows[k]) for k in ends(len(rows))]

    def _notes(self) -> list[str]:
        first = [f"Probability: of being {self.decision}. Label: order in which labels would narrow that most."]
        return first + [f"Failed: {row['source']}: {row['failed']}" for row in self.failed[:3]] + (["…"] if len(self.failed) > 3 else [])


def cells(row: dict) -> list[str]:
    """A row as it is shown."""
    low, high = ("−∞" if row["lower"] is None else f"{row['lower']:.4f}", "∞" if row["upper"] is None else f"{row['upper']:.4f}")
    probability = "-" if row["probability"] is None else f"{row['probability']:.3f}"
    value = f"{row['value']:.4f} ± {row['std']:.2g}"
    label = "" if row["next_label"] is None else str(row["next_label"])
    return [str(row["rank"]), str(row["candidate"]), row["source"], row["formula"], value, f"[{low}, {high}]", probability,
            "" if row["flags"] == "-" else str(row["flags"] or ""), label]  # fmt: skip


def _cells(row: dict) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells(row))
