"""The zip of a model file: a header of JSON and one array for each of its references, stored as they are.

The header lists data type, shape and SHA-256 of the numbers of every array, and its own SHA-256, made without that entry. Members are
never compressed, so that what is read is never more than the file; nothing is read or allocated that the header does not announce.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soapkrr.errors import InputError, ModelFileError
from soapkrr.modelfile.encoding import calculator_places, references, to_json
from soapkrr.modelfile.versions import FORMAT, VERSION, check_version, upgraded
from soapkrr.modelfile.writing import write_whole

#: What reading a damaged file can raise.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, MemoryError),
    *(LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, SyntaxError, tokenize.TokenError),
)

HEADER = "model.json"

#: Largest header, bytes: parsed, JSON takes many times its length.
LARGEST_HEADER = 64 * 2**20

#: Bytes read or written at once.
CHUNK = 2**20

#: Kinds of data types that arrays may have: truth values, integers, floating-point numbers.
KINDS = "biuf"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model file holds, digests compared.

    Attributes
    ----------
    header : of the newest version; ``version`` as the file states it.  arrays : {name: array} of all references.
    """

    header: dict
    arrays: dict[str, np.ndarray]


def write(path: str | os.PathLike, *, estimator: str, origin: Mapping, parameters: Mapping, state: Mapping) -> None:
    """Write a fitted estimator: the name of its class, what it was fitted to and when, its parameters and its state."""
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "estimator": estimator,
        "origin": dict(origin),
        "parameters": to_json(parameters, arrays, "parameters"),
        "state": to_json(state, arrays, "state"),
    }
    arrays = {name: _plain(array, name) for name, array in arrays.items()}
    header = sealed(header | {"arrays": {name: declaration(array) for name, array in arrays.items()}})
    text = json.dumps(header, indent=1).encode()
    if len(text) > LARGEST_HEADER:
        raise InputError(f"cannot write {path}: its header takes {len(text)} bytes, more than {LARGEST_HEADER}; are all parameters needed?")
    write_whole(path, lambda file: _fill(file, text, arrays))


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    """The array in C order with the low byte first."""
    if array.dtype.kind not in KINDS:
        raise InputError(f"`{name}` holds {array.dtype}, expected real numbers: it cannot be written to a model file.")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def declaration(array: np.ndarray) -> dict:
    """What the header says of an array."""
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": hashlib.sha256(_bytes(array)).hexdigest()}


def sealed(header: Mapping) -> dict:
    """A header with the digest of everything else in it, in its order."""
    rest = {name: value for name, value in header.items() if name != "sha256"}
    return rest | {"sha256": hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()}


def _bytes(array: np.ndarray) -> memoryview:
    """The numbers of a contiguous array."""
    return memoryview(array.reshape(-1)).cast("B") if array.size else memoryview(b"")


def _fill(file, text: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """The zip; the same contents give the same bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for name, array in arrays.items():
            info, numbers = zipfile.ZipInfo(f"{name}.npy"), _bytes(array)
            info.file_size = 128 + len(numbers)
            with archive.open(info, "w") as member:
                np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
                for start in range(0, len(numbers), CHUNK):
                    member.write(numbers[start : start + CHUNK])


def read(path: str | os.PathLike) -> ModelFile:
    """A model file, its digests compared."""
    with _opened(path) as archive:
        header = _header_of(archive)
        return ModelFile(upgraded(header), _arrays_of(archive, header))


def read_header(path: str | os.PathLike) -> dict:
    """What a model file says of itself, checked and brought to the newest version: its arrays are only named."""
    with _opened(path) as archive:
        return upgraded(_header_of(archive))


def baseline_calculator_name(path: str | os.PathLike) -> str | None:
    """Name of the calculator that a model file needs as ``baseline_calculator``; None where it needs none."""
    places = calculator_places(read_header(path))
    return str(places[0].get("calculator")) if places else None


@contextmanager
def damage(path: str | os.PathLike) -> Iterator[None]:
    """Whatever goes wrong inside becomes a `ModelFileError` that names the file."""
    try:
        yield
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise ModelFileError(f"{path} is not a readable soapkrr model (foreign, truncated or corrupt): {error}") from error


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """The archive, once its members are sound."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no model file at {path}.")
    if not Path(path).is_file() and not Path(path).is_dir():
        raise ModelFileError(f"{path} is a pipe or a device, not a regular file.")
    with damage(path), zipfile.ZipFile(path) as archive:
        _check_members(archive, os.stat(path).st_size)
        yield archive


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """No name twice, nothing compressed, no more bytes than the file has."""
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise ModelFileError("a member occurs twice.")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size or member.flag_bits & 1:
            raise ModelFileError(f"{member.filename} is compressed or encrypted, as no member of a model is.")
    if sum(member.file_size for member in members) > size:
        raise ModelFileError(f"its members are larger than the file, {size} bytes.")


def _header_of(archive: zipfile.ZipFile) -> dict:
    """The header as it stands, of a version that can be read, its digest compared."""
    if HEADER not in archive.namelist():
        raise ModelFileError("this is not a soapkrr model: it holds no model.json.")
    if archive.getinfo(HEADER).file_size > LARGEST_HEADER:
        raise ModelFileError(f"model.json is larger than {LARGEST_HEADER} bytes.")
    header = json.loads(archive.read(HEADER))
    check_version(header)
    if header["version"] > 1 and sealed(header)["sha256"] != header["sha256"]:
        raise ModelFileError("model.json is damaged or was changed: its SHA-256 is another one.")
    return header


def _arrays_of(archive: zipfile.ZipFile, header: dict) -> dict[str, np.ndarray]:
    """Every array that the header refers to, by its name."""
    names = sorted(set(references(header.get("parameters"))) | set(references(_state(header))))
    if header["version"] == 1:
        return {name: _array(archive, name) for name in names}
    declared, members = header["arrays"], set(archive.namelist())
    if set(declared) != set(names) or members != {HEADER, *(f"{name}.npy" for name in names)}:
        raise ModelFileError("the members of the file are not those that model.json refers to.")
    arrays = {name: _array(archive, name) for name in names}
    for name, array in arrays.items():
        if declaration(array) != declared[name]:
            raise ModelFileError(f"{name} is damaged or was changed: type, shape or SHA-256 differ from what model.json states.")
    return arrays


def _state(header: dict):
    """The state, which in version 1 lay flat in the header."""
    return header["state"] if header["version"] > 1 else header


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array, which takes the room that its member takes."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ModelFileError(f"{name} is no array of NumPy's format 1.0.")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        if fortran or dtype.kind not in KINDS or dtype.str.startswith(">"):
            raise ModelFileError(f"{name} holds {dtype}, expected real numbers in C order.")
        count = 1
        for length in shape:
            count *= length
        if min(shape, default=0) < 0 or not 0 <= count * dtype.itemsize < info.file_size:
            raise ModelFileError(f"{name} is said to have shape {shape}, which its {info.file_size} bytes do not hold.")
        array = np.empty(shape, dtype)
        _fill_from(member, _bytes(array), name)
    return array


def _fill_from(member, numbers: memoryview, name: str) -> None:
    """Read exactly so many bytes, to the end of the member."""
    start = 0
    while start < len(numbers):
        part = member.read(min(CHUNK, len(numbers) - start))
        if not part:
            raise ModelFileError(f"{name} ends early.")
        numbers[start : start + len(part)] = part
        start += len(part)
    if member.read(1):
        raise ModelFileError(f"{name} is longer than its shape says.")
