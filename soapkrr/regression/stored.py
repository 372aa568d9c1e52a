"""Checks of what a model file states: types, shapes, finite numbers, ranges; whatever fails raises `ModelFileError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from numbers import Real

import numpy as np

from soapkrr.errors import ModelFileError
from soapkrr.linear import Posterior


def array(value, name: str, kind: str = "f", shape: Sequence[int | None] | None = None) -> np.ndarray:
    """An array of 64-bit floats ("f"), integers ("i") or truth values ("b") of a shape in which None is any length; all finite."""
    wanted = {"f": "float64", "i": "integers", "b": "bool"}[kind]
    fits = isinstance(value, np.ndarray) and value.dtype.kind == kind and (kind != "f" or value.dtype == np.float64)
    if not fits:
        raise ModelFileError(f"{name} is {getattr(value, 'dtype', type(value).__name__)}, expected an array of {wanted}.")
    if shape is not None and (value.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True))):
        raise ModelFileError(f"the arrays do not fit together: {name} has shape {value.shape}, expected {tuple(shape)}.")
    if kind == "f" and not np.isfinite(value).all():
        raise ModelFileError(f"{name} holds numbers that are not finite.")
    return value


def arrays(values, name: str, kind: str = "f") -> tuple[np.ndarray, ...]:
    """A list of such arrays of any shape."""
    if not isinstance(values, (list, tuple)):
        raise ModelFileError(f"{name} is {type(values).__name__}, expected a list of arrays.")
    return tuple(array(value, name, kind) for value in values)


def number(value, name: str, *, positive: bool = False, unknown: bool = False) -> float:
    """A finite number, positive where said so; with ``unknown`` NaN and infinity pass."""
    if isinstance(value, bool) or not isinstance(value, Real) or not (isfinite(value) or unknown) or (positive and not value > 0):
        raise ModelFileError(f"{name} is {value!r}, expected a {'positive ' if positive else ''}finite number.")
    return value


def mapping(value, name: str) -> Mapping:
    """A mapping with names for keys."""
    if not isinstance(value, Mapping):
        raise ModelFileError(f"{name} is {type(value).__name__}, expected a mapping.")
    return value


def count(value, name: str) -> int:
    """A number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelFileError(f"{name} is {value!r}, expected an integer ≥ 0.")
    return value


def factor(value, name: str, n: int) -> np.ndarray:
    """A triangular (n, n) matrix that can be solved with."""
    if not np.diagonal(array(value, name, shape=(n, n))).all():
        raise ModelFileError(f"{name} has a zero on its diagonal.")
    return value


def posterior(state, name: str = "posterior") -> Posterior:
    """`Posterior` from its state."""
    known = Posterior(**mapping(state, name))
    factor(known.factor, f"{name}.factor", len(array(known.mean, f"{name}.mean", shape=(None,))))
    number(known.residual, f"{name}.residual")
    if isnan(number(known.condition, f"{name}.condition", positive=True, unknown=True)):
        raise ModelFileError(f"{name}.condition is not a number.")
    return known


def references(state) -> Mapping[str, float]:
    """Energies (or values) of single atoms by symbol."""
    return {symbol: number(e, f"reference_energies[{symbol!r}]") for symbol, e in mapping(state, "reference_energies").items()}


def counts(state) -> dict[str, int]:
    """Numbers of observations by kind."""
    return {kind: count(n, f"n_observations[{kind!r}]") for kind, n in mapping(state, "n_observations").items()}
