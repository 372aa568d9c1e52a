"""Scalar properties of structures or atoms, carried by them or given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError, LabelError
from soapkrr.labels.lookup import lookup, numeric


def property_values(frames: list[Atoms], key: str | Sequence, kind: str = "structure") -> tuple[np.ndarray, np.ndarray]:
    """A scalar property of structures or atoms, checked.

    Parameters
    ----------
    key : name of the property, looked up in the calculator's results if the name is ASE's, then in `info` (``kind="structure"``) or
        `arrays` (``kind="atom"``); or the values: (n_structures,), or for atoms (n_atoms,) of all structures or one array for each.
    kind : ``"structure"`` or ``"atom"``.

    Returns
    -------
    values : (n,) float.
    owner : (n,) index of the structure of each value.

    Raises
    ------
    LabelError : a structure lacks the property, or it has a wrong shape or is not finite; the message names frame and key.
    """
    if kind not in ("structure", "atom"):
        raise InputError(f"`kind` must be 'structure' or 'atom', received {kind!r}.")
    sizes = np.array([len(atoms) if kind == "atom" else 1 for atoms in frames])
    name = key if isinstance(key, str) else "key"
    parts = [lookup(atoms, key, s, kind == "atom") for s, atoms in enumerate(frames)] if isinstance(key, str) else _given(key, sizes)
    for index, (part, n) in enumerate(zip(parts, sizes, strict=True)):
        if part is None:
            there = sorted((frames[index].arrays if kind == "atom" else frames[index].info).keys())
            raise LabelError(f"frame {index} has no {name!r}; its `{'arrays' if kind == 'atom' else 'info'}` holds {there}.")
        parts[index] = _scalars(part, name, kind, int(n), index)
    return np.concatenate(parts), np.repeat(np.arange(len(frames)), sizes)


def _given(values, sizes: np.ndarray) -> list:
    """Values split by structure."""
    try:
        flat = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        flat = None
    if flat is not None and flat.shape == (sizes.sum(),):
        return np.split(flat, np.cumsum(sizes)[:-1])
    if len(values) != len(sizes):
        raise LabelError(f"`key` holds {len(values)} values, expected {sizes.sum()}, or one array for each of {len(sizes)} structures.")
    return list(values)


def _scalars(value, name: str, kind: str, n: int, index: int) -> np.ndarray:
    value = numeric(value, name, index)
    if value.size != n or value.ndim > 1 + (kind == "atom"):
        raise LabelError(f"frame {index}: `{name}` has shape {value.shape}, expected {'one number' if kind == 'structure' else (n,)}.")
    bad = np.flatnonzero(~np.isfinite(value.ravel()))
    if len(bad):
        where = f"frame {index}, atom {bad[0]}" if kind == "atom" else f"frame {index}"
        raise LabelError(f"{where}: `{name}` is {value.ravel()[bad[0]]}; correct or remove it.")
    return value.ravel()
