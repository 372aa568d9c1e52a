"""Model files: one versioned zip of JSON and plain arrays, written whole and renamed; reading executes nothing from it.

A header names the estimator and holds its parameters and its state; arrays lie beside it. What an estimator is, `loading` knows.
"""

from __future__ import annotations

import io
import json
import os
import pkgutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from inspect import isabstract
from pathlib import Path

import numpy as np
from ase.calculators.calculator import BaseCalculator

from soapkrr import descriptors
from soapkrr.baselines import CalculatorBaseline
from soapkrr.errors import InputError, ModelFileError
from soapkrr.specification import Specification

FORMAT = "soapkrr-model"

VERSION = 2

#: What reading a damaged file can raise.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)


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


def check_writable(path: str | os.PathLike) -> Path:
    """The path, once it is certain that a file can be written there."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory.")
    if path.exists() and not path.is_file():
        raise InputError(f"cannot write {path}: it is not a regular file.")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: the folder {folder} does not exist.")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
            return path
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}.") from error


def write_whole(path: str | os.PathLike, write: Callable) -> None:
    """Call ``write(file)`` on a temporary file beside ``path`` and rename it: never a half-written file."""
    path = check_writable(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write(path: str | os.PathLike, estimator: str, parameters: Mapping, state: Mapping) -> None:
    """Write a fitted estimator: the name of its class, its parameters and its state."""
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "estimator": estimator,
        "parameters": to_json(parameters, arrays, "parameters"),
        "state": to_json(state, arrays, "state"),
    }

    def fill(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model.json", json.dumps(header, indent=1))
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(f"{name}.npy", buffer.getvalue())

    write_whole(path, fill)


def read_header(path: str | os.PathLike) -> dict:
    """What a model file says of itself, checked and brought to the newest version: estimator, parameters, state without its arrays."""
    with opened(path) as archive:
        return header_of(archive)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever goes wrong inside it becomes a `ModelFileError`."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no model file at {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise ModelFileError(f"{path} is not a readable soapkrr model (foreign, truncated or corrupt): {error}") from error


def header_of(archive: zipfile.ZipFile) -> dict:
    """The header, checked and brought to the newest version."""
    if "model.json" not in archive.namelist():
        raise ModelFileError("this is not a soapkrr model: it holds no model.json.")
    header = json.loads(archive.read("model.json"))
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("version"), int):
        raise ModelFileError("this is not a soapkrr model: model.json states no format and version of ours.")
    if header["version"] > VERSION:
        raise ModelFileError(f"format version {header['version']} is newer than {VERSION}, the newest this soapkrr reads: update soapkrr.")
    return upgraded(header)


def arrays_of(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Every array by its name."""
    names = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
    return {n: np.lib.format.read_array(io.BytesIO(archive.read(f"{n}.npy")), allow_pickle=False) for n in names}


def upgraded(header: dict) -> dict:
    """A header as the newest version has it."""
    return _from_version_1(header) if header["version"] == 1 else header


def _from_version_1(header: dict) -> dict:
    """A header of version 1: properties were estimators of potentials with a ``target``, and the state lay flat in the header."""
    parameters, common = dict(header["parameters"]), ("reference_energies", "n_observations", "noise", "log_likelihood")
    target, estimator = parameters.pop("target", "potential"), header["estimator"]
    own = {name: value for name, value in header.items() if name not in (*common, "format", "version", "estimator", "parameters")}
    state = {name: header[name] for name in common}
    if target != "potential":
        estimator = {"GaussianProcess": "PropertyGP", "KernelRidge": "PropertyRidge"}[estimator]
        kept = ("descriptor", "kernel", "noise", "signal", "alpha", "baseline")
        parameters = {name: parameters[name] for name in kept if name in parameters} | {"target": target}
        process = {"kind": "ScalarProcess", "target": target, **own}
    else:
        state["triangles"] = own.pop("factors", {})
        kind = next((kind for name, kind in VERSION_1_KINDS.items() if name in own), "ExactProcess")
        process = {"kind": kind, **own} | ({"tolerance": parameters["cg_tolerance"]} if kind == "IterativeProcess" else {})
    return {
        **{name: header[name] for name in ("format", "version")},
        "estimator": estimator,
        "parameters": parameters,
        "state": state | {"process": process},
    }


#: Entries of a state of version 1 that told the kind of process.
VERSION_1_KINDS = {"terms": "SparseProcess", "transform": "SubsetProcess", "sparse": "IterativeProcess"}


def baseline_calculator_name(path: str | os.PathLike) -> str | None:
    """Name of the calculator that a model file needs as ``baseline_calculator``; None where it needs none."""
    places = calculator_places(read_header(path))
    return str(places[0].get("calculator")) if places else None


def calculator_places(header: dict) -> list[dict]:
    """Where the ``baseline`` of a header stands for a calculator."""
    parameters = header.get("parameters")
    baseline = parameters.get("baseline") if isinstance(parameters, dict) else None
    parts = baseline if isinstance(baseline, list) else [baseline]
    return [part for part in parts if isinstance(part, dict) and part.get("type") == CalculatorBaseline.__name__]
