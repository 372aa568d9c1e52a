"""One HTML page that needs nothing else: sections of paragraphs, tables and figures, in a narrow window as in a wide one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from soapkrr.display import html_lines, html_table, text_table

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.6em;margin-bottom:.2em}h2{font-size:1.2em;margin-top:2.2em;border-bottom:2px solid #1f5fa8;padding-bottom:.15em}"
    "table{border-collapse:collapse;font-size:.93em}td,th{padding:.25em .8em .25em 0;text-align:left;border-bottom:1px solid #ddd;"
    "vertical-align:top;overflow-wrap:anywhere}th{color:#555;font-weight:600}.wide{overflow-x:auto;margin:.8em 0}"
    ".wide td,.wide th{overflow-wrap:break-word}.fail{color:#b00020;font-weight:bold}.pass{color:#1b6e3a}.note{color:#555;font-size:.93em}"
    "figure{display:inline-block;margin:.8em 1.2em .8em 0;vertical-align:top;max-width:100%}"
    "figure img{width:29em;max-width:100%;height:auto}"
    ".wide td,.wide th{min-width:3.5em}figcaption{max-width:28em;font-size:.9em;color:#444}"
    "pre{background:#f6f6f6;padding:1em;overflow-x:auto}"
    "nav{font-size:.93em;margin:1em 0}nav a{margin-right:1.1em;color:#1f5fa8}"
    "@media print{body{max-width:none;margin:0}h2{break-after:avoid}figure,tr{break-inside:avoid}}"
)


@dataclass(frozen=True)
class Table:
    """Cells as texts; ``caption`` above them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Image:
    """A PNG in base64; ``title`` for who does not see it."""

    title: str
    png: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, tables, figures, and text that keeps its lines."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    images: Sequence[Image] = ()
    verbatim: str = ""

    def text(self) -> str:
        """For a terminal, without the figures."""
        tables = [f"{table.caption}\n{text_table(table.columns, table.rows)}".strip() for table in self.tables if table.rows]
        return "\n".join(filter(None, [self.title.upper(), *self.lines, *tables, self.verbatim]))

    def html(self) -> str:
        """For a page."""
        parts = [f'<section id="{_anchor(self.title)}"><h2>{escape(self.title)}</h2>', html_lines(self.lines)]
        for table in self.tables:
            if table.rows:
                parts.append(f'<p class="note">{escape(table.caption)}</p>' if table.caption else "")
                parts.append(f'<div class="wide">{_marked(html_table(table.columns, table.rows))}</div>')
        verbatim = f"<pre>{escape(self.verbatim)}</pre>" if self.verbatim else ""
        return "".join([*parts, *map(html_image, self.images), verbatim, "</section>"])


def html_page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{_anchor(section.title)}">{escape(section.title)}</a>' for section in sections)
    body = f"<h1>{escape(title)}</h1>{html_lines(lead)}<nav>{links}</nav>{''.join(section.html() for section in sections)}"
    return f"{head(title)}<body>{body}</body></html>\n"


def head(title: str) -> str:
    """Everything before the body."""
    size = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{size}<title>{escape(title)}</title><style>{STYLE}</style></head>'


def html_image(image: Image) -> str:
    """A figure with its caption."""
    caption = f"<figcaption>{escape(image.caption)}</figcaption>" if image.caption else ""
    return f'<figure><img alt="{escape(image.title)}" src="data:image/png;base64,{image.png}">{caption}</figure>'


def _marked(table: str) -> str:
    """Verdicts in colour."""
    return table.replace("<td>pass</td>", '<td class="pass">pass</td>').replace("<td>FAIL</td>", '<td class="fail">FAIL</td>')


def _anchor(title: str) -> str:
    return "-".join(title.lower().split())
