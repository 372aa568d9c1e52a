"""Specifications, lists, mappings and numbers as JSON; arrays by reference."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from inspect import isabstract

import numpy as np
from ase.calculators.calculator import BaseCalculator

from soapkrr import descriptors
from soapkrr.baselines import KEYWORDS, CalculatorBaseline, NamedBaseline, ScaledBaseline, parts_of
from soapkrr.errors import ModelFileError
from soapkrr.specification import Specification


def specifications() -> dict[str, type]:
    """Specifications by name: what may occur in a file; anything else is refused.

    The package's own, and those that the process has defined or imported by itself: a file names classes, it never imports any.
    """
    _import_own()
    found: dict[str, type] = {}
    kinds = [Specification]
    for kind in kinds:
        kinds += kind.__subclasses__()
        own = kind.__module__.startswith("soapkrr.")
        if is_dataclass(kind) and not isabstract(kind) and (own or kind.__name__ not in found):
            found[kind.__name__] = kind
    return found


@cache
def _import_own() -> None:
    """Import every module that defines specifications."""
    for module in pkgutil.iter_modules(descriptors.__path__):
        import_module(f"{descriptors.__name__}.{module.name}")
    for name in ("baselines", "kernels", "labels.observations", "selection.specifications", "regression.terms"):
        import_module(f"soapkrr.{name}")


def to_json(value, arrays: dict[str, np.ndarray] | None = None, name: str = "specification"):
    """Specifications become {"type": name, parameters}, arrays {"array": path} and go into ``arrays`` by their path; the rest stays."""
    if isinstance(value, Specification):
        parameters = value.get_params(deep=False).items()
        return {"type": type(value).__name__, **{k: to_json(v, arrays, f"{name}.{k}") for k, v in parameters}}
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, BaseCalculator):
        return type(value).__name__
    if isinstance(value, (list, tuple)):
        return [to_json(v, arrays, f"{name}.{k}") for k, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(k): to_json(v, arrays, f"{name}.{k}") for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def from_json(value, arrays: Mapping[str, np.ndarray] | None = None):
    """Inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        return arrays[value["array"]]
    kind = value.get("type") if isinstance(value.get("type"), str) else None
    parts = {k: from_json(v, arrays) for k, v in value.items() if kind is None or k != "type"}
    if kind is None:
        return parts
    if kind not in specifications():
        raise ModelFileError(f"the file names an unknown specification {kind!r}.")
    return specifications()[kind](**parts)


def references(value) -> Iterator[str]:
    """Names of the arrays that a value of `to_json` refers to."""
    if isinstance(value, dict) and set(value) == {"array"}:
        yield value["array"]
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from references(part)


def calculator_places(header: dict) -> list[dict]:
    """Where the ``baseline`` of a header stands for a calculator."""
    return [part for part in _baseline_parts(header) if isinstance(part, dict) and part.get("type") == CalculatorBaseline.__name__]


def prior_mean_names(header: dict) -> list[str]:
    """Names of prior means in the ``baseline`` of a header."""
    parts = _baseline_parts(header)
    inside = [part.get("name") for part in parts if isinstance(part, dict) and part.get("type") == NamedBaseline.__name__]
    return [part for part in [*parts, *inside] if isinstance(part, str) and part not in KEYWORDS]


def _baseline_parts(header: dict) -> list:
    """The parts of the ``baseline`` of a header, and those inside of scaled ones."""
    parameters = header.get("parameters")
    parts = parts_of(parameters.get("baseline") if isinstance(parameters, dict) else None)
    scaled = [part for part in parts if isinstance(part, dict) and part.get("type") == ScaledBaseline.__name__]
    return [*parts, *(part.get("mean") for part in scaled)]
