"""Model files: one versioned zip of JSON and plain arrays, written whole and renamed; loading executes nothing from it."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from soapkrr import kernels
from soapkrr.baselines import ZBL, CalculatorBaseline
from soapkrr.descriptors import acsf, cutoff, pair, soap, transform
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, ModelFileError
from soapkrr.linear import Posterior
from soapkrr.potential import Potential
from soapkrr.regression.sparse_gp import SparseGP
from soapkrr.regression.terms import SparseTerm, Term

FORMAT = "soapkrr-model"
VERSION = 1

#: Specifications that may occur in a file; anything else is refused.
SPECIFICATIONS = {
    c.__name__: c
    for c in (
        *(soap.SOAP, acsf.ACSF, pair.Pair, transform.Standardized),
        *(cutoff.Smoothstep, cutoff.Cosine, cutoff.Tanh3, cutoff.Polynomial, cutoff.RadialScaling),
        *(kernels.DotProduct, kernels.Linear, kernels.SquaredExponential, kernels.Matern32, kernels.Matern52, kernels.RationalQuadratic),
        *(kernels.Sum, kernels.Product, kernels.Scaled, Term, ZBL, CalculatorBaseline),
    )
}

#: What reading a damaged file can raise.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)


def to_json(value):
    """Specification objects become {"type": name, parameters}; numbers, strings, lists and mappings stay."""
    if isinstance(value, CalculatorBaseline):
        return {"type": CalculatorBaseline.__name__, "calculator": type(value.calculator).__name__}
    if is_dataclass(value):
        parameters = {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"type": type(value).__name__, **parameters}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def from_json(value):
    """Inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if isinstance(value, dict) and "type" in value:
        kind = SPECIFICATIONS.get(value["type"])
        if kind is None:
            raise ModelFileError(f"the file names an unknown specification {value['type']!r}.")
        return kind(**{k: from_json(v) for k, v in value.items() if k != "type"})
    return {k: from_json(v) for k, v in value.items()} if isinstance(value, dict) else value


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


def save(model: SparseGP, path: str | os.PathLike) -> None:
    """Write a fitted model."""
    posterior, specs = model.posterior_, model._terms()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "estimator": type(model).__name__,
        "parameters": {name: to_json(value) for name, value in model.get_params(deep=False).items()},
        "learnt": [to_json(t.descriptor) if t.descriptor != spec.descriptor else None for t, spec in zip(model.terms_, specs, strict=True)],
        "reference_energies": model.reference_energies_,
        "n_observations": model.n_observations_,
        "condition": posterior.condition,
        "residual": posterior.residual,
    }
    arrays = {"mean": posterior.mean, "factor": posterior.factor}
    for t, term in enumerate(model.terms_):
        arrays |= {f"points.{t}.{s}": x for s, x in enumerate(term.points)}
        arrays |= {f"transform.{t}.{s}": x for s, x in enumerate(term.transform)}
    arrays |= {f"factors.{kind}": f for kind, f in model.factors_.items()}

    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model.json", json.dumps(header, indent=1))
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(f"{name}.npy", buffer.getvalue())

    write_whole(path, write)


def read_header(path: str | os.PathLike) -> dict:
    """What a model file says of itself, checked: format version, estimator, parameters, references, numbers of observations."""
    with _opened(path) as archive:
        return _header(archive)


def load(path: str | os.PathLike, baseline_calculator=None) -> Potential:
    """Read a model written by `Potential.save`.

    Parameters
    ----------
    baseline_calculator : the ASE calculator of a model whose ``baseline`` has one: calculators are not saved.

    Raises
    ------
    InputError : the model needs ``baseline_calculator``, or has no use for it.
    ModelFileError : not a soapkrr model, truncated, corrupt, or written by a newer version.
    FileNotFoundError : there is no such file.
    """
    _check_calculator(_calculator_places(read_header(path)), baseline_calculator)
    with _opened(path) as archive:
        header = _header(archive)
        for place in _calculator_places(header):
            place |= {"calculator": baseline_calculator}
        names = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
        arrays = {n: np.lib.format.read_array(io.BytesIO(archive.read(f"{n}.npy")), allow_pickle=False) for n in names}
        return _rebuild(header, arrays)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
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


def _header(archive: zipfile.ZipFile) -> dict:
    if "model.json" not in archive.namelist():
        raise ModelFileError("this is not a soapkrr model: it holds no model.json.")
    header = json.loads(archive.read("model.json"))
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("version"), int):
        raise ModelFileError("this is not a soapkrr model: model.json states no format and version of ours.")
    if header["version"] > VERSION:
        raise ModelFileError(f"format version {header['version']} is newer than {VERSION}, the newest this soapkrr reads: update soapkrr.")
    return header


def _rebuild(header: dict, arrays: dict[str, np.ndarray]) -> Potential:
    if header["estimator"] != SparseGP.__name__:
        raise ModelFileError(f"the file names an unknown estimator {header['estimator']!r}.")
    model = SparseGP(**{name: from_json(value) for name, value in header["parameters"].items()})
    learnt = from_json(header["learnt"])
    specs = enumerate(zip(model._terms(), learnt, strict=True))
    terms = tuple(_term(spec, descriptor or spec.descriptor, arrays, t) for t, (spec, descriptor) in specs)
    rank = sum(term.rank for term in terms)
    posterior = Posterior(arrays["mean"], arrays["factor"], header["condition"], header["residual"])
    if posterior.factor.shape != (rank, rank) or posterior.mean.shape != (rank,):
        raise ModelFileError(f"the arrays do not fit together: {rank} features, factor {posterior.factor.shape}.")
    references = {str(symbol): float(energy) for symbol, energy in header["reference_energies"].items()}
    if not set(references) <= set(atomic_numbers):
        raise ModelFileError(f"the file has reference energies of {sorted(references)}, which are not all elements.")
    factors = {name.removeprefix("factors."): a for name, a in arrays.items() if name.startswith("factors.")}
    model._set_fitted(terms, posterior, references, factors)
    model.n_observations_ = header["n_observations"]
    return model


def _term(spec: Term, descriptor, arrays: dict[str, np.ndarray], t: int) -> SparseTerm:
    """Fitted term number ``t``, checked against its specification."""
    if not (isinstance(descriptor, Descriptor) and descriptor.species == spec.descriptor.species):
        raise ModelFileError(f"the file pairs {spec!r} with {descriptor!r}, which is no model.")
    points, transform = (tuple(arrays[f"{name}.{t}.{s}"] for s in range(len(descriptor.species))) for name in ("points", "transform"))
    for symbol, x, y in zip(descriptor.species, points, transform, strict=True):
        if x.ndim != 2 or x.shape[1] != descriptor.n_features or y.ndim != 2 or len(y) != len(x):
            raise ModelFileError(f"the arrays do not fit the descriptor: {symbol} has sparse points {x.shape}, transform {y.shape}.")
    return SparseTerm(descriptor, spec.kernel, spec.signal, points, transform)


def _calculator_places(header: dict) -> list[dict]:
    """Where the ``baseline`` of a header stands for a calculator."""
    parameters = header.get("parameters")
    baseline = parameters.get("baseline") if isinstance(parameters, dict) else None
    parts = baseline if isinstance(baseline, list) else [baseline]
    return [part for part in parts if isinstance(part, dict) and part.get("type") == CalculatorBaseline.__name__]


def _check_calculator(places: list[dict], calculator) -> None:
    if places and calculator is None:
        name = places[0].get("calculator")
        raise InputError(f"this model was fitted on top of a calculator ({name}), which files do not hold: pass `baseline_calculator`.")
    if calculator is not None and not places:
        raise InputError("`baseline_calculator` was given, but this model was fitted without one.")
