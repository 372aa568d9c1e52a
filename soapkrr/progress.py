"""Progress bars through one helper: of what takes long, on a terminal or in a notebook, unless silence is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from tqdm import tqdm

#: Seconds after which there is a bar.
DELAY = 2.0


def track(items: Iterable, total: int, label: str, show: bool) -> Iterator:
    """Iterate, drawing a bar when ``show`` is true and it takes longer than `DELAY`: on standard error if that is a terminal, below
    the cell of a notebook.
    """
    bar = _bar() if show and total != 1 else None
    yield from items if bar is None else bar(items, total=total, desc=label, leave=False, delay=DELAY)


def _bar():
    """The kind of bar that is seen here; None where there is neither a terminal nor a notebook."""
    if sys.stderr.isatty():
        return tqdm
    if not in_notebook():
        return None
    if find_spec("ipywidgets") is None:
        return _text_bar
    from tqdm.notebook import tqdm as notebook_bar

    return notebook_bar


def _text_bar(items: Iterable, **settings):
    """A bar of text on standard output: notebooks show standard error as if something had failed."""
    return tqdm(items, file=sys.stdout, ascii=False, ncols=90, **settings)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
