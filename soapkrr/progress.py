"""Progress bars through one helper: a bar on a terminal when asked for, silence otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm


def track(items: Iterable, total: int, label: str, show: bool) -> Iterator:
    """Iterate, drawing a bar on standard error when ``show`` is true and standard error is a terminal."""
    yield from tqdm(items, total=total, desc=label, disable=not (show and sys.stderr.isatty()), leave=False)
