"""Amounts of memory: read from what a user writes, and written so that the number named is enough."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, floor, inf, log10
from numbers import Real

import numpy as np

from soapkrr import backends
from soapkrr.errors import InputError, MemoryLimitError

#: Bytes of each unit, largest first: decimal ones, as memory is written for users, then binary ones.
DECIMAL = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}

UNITS = (
    {name.upper(): size for name, size in DECIMAL.items()} | {f"{p}IB": 2 ** (10 * k) for k, p in enumerate("KMGT", 1)} | {"B": 1, "": 1}
)


def parse_memory(value, name: str = "memory_limit") -> int | None:
    """Bytes from ``"2GB"`` (10⁹ bytes each), ``"512MiB"`` (2²⁰ bytes each) or a number of bytes; None, no limit, stays None.

    Raises
    ------
    InputError : anything else, or an amount that is not positive.

    Examples
    --------
    >>> parse_memory("1.5 GB"), parse_memory("512MiB"), parse_memory(4096)
    (1500000000, 536870912, 4096)
    """
    if value is None:
        return None
    size = None
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([A-Za-z]*)\s*", value)
        if match and match[2].upper() in UNITS:
            size = float(match[1]) * UNITS[match[2].upper()]
    elif isinstance(value, Real) and not isinstance(value, bool):
        size = float(value)
    if size is None or not 1 <= size < inf:
        raise InputError(f"`{name}` must be an amount of memory such as '2GB', '512MiB' or a number of bytes, or None, received {value!r}.")
    return int(size)


def format_memory(size: float) -> str:
    """Three digits and a decimal unit, rounded up: a limit of what is written is never below ``size``.

    Examples
    --------
    >>> format_memory(1_230_000_001), format_memory(4096)
    ('1.24 GB', '4.1 kB')
    """
    size = max(ceil(size), 1)
    step = 10 ** max(floor(log10(size)) - 2, 0)
    size = -(-size // step) * step
    unit = next((name for name, one in DECIMAL.items() if size >= one), "B")
    return f"{size / DECIMAL.get(unit, 1):.4g} {unit}"


@contextmanager
def device_limit(xp, value) -> Iterator[None]:
    """Let arrays of ``xp`` take no more than ``value``, as `parse_memory` reads it, beside those there are: of a GPU's memory pool alone.

    Blocks that do not fit are made in halves (`blocks.split_on_out_of_memory`).

    Raises
    ------
    InputError : something that is not divided does not fit.
    """
    limit = parse_memory(value)
    if xp is np or limit is None:
        yield
        return
    pool = xp.get_default_memory_pool()
    pool.free_all_blocks()
    outside, inside = pool.get_limit(), pool.used_bytes() + limit
    pool.set_limit(size=min(outside, inside) if outside else inside)
    try:
        yield
    except backends.out_of_memory() as error:
        raise MemoryLimitError(f"`memory_limit`={format_memory(limit)} is too small on the GPU: {error}") from error
    finally:
        pool.set_limit(size=outside)
