"""Sphinx configuration: ``sphinx-build -W docs build/docs``."""

import re

import soapkrr

project = "soapkrr"
version = release = soapkrr.__version__
author = "the soapkrr developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"soapkrr {version}"
html_static_path = ["figures"]

default_role = "code"  # docstrings put names in single back-ticks
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["myst.xref_missing", "ref.python"]  # architecture.md links into the repository


def escape(line: str) -> str:
    """What docstrings mean as text and docutils would take for markup: norms |x|, names that end in an underscore."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", line)
    return "".join(piece if piece.startswith("`") else re.sub(r"(\w)_(?![\w`])", r"\1\\_", piece).replace("|", r"\|") for piece in pieces)


def escape_docstring(app, what, name, thing, options, lines):
    """Of every docstring, all lines but the examples."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else escape(line) for line in lines]


def skip_foreign(app, what, name, member, skip, options):
    """Leave out what classes inherit from other packages."""
    origin = getattr(getattr(member, "fget", member), "__module__", None) or ""
    return True if origin and not origin.startswith("soapkrr") else None


def setup(app):
    """Connect before napoleon reads the docstrings."""
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
