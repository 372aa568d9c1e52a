"""Where a fit comes from: which software, when, and of which data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

import numpy as np
from ase import Atoms

from soapkrr import __version__
from soapkrr.errors import InputError, ModelFileError

#: What is known of a fit, all of them strings; in files of version 1 none.
ENTRIES = ("software", "date", "data_sha256")


def origin(data_sha256: str | None = None) -> dict[str, str]:
    """Of a fit made now; None: to data that are not at hand as a whole."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    data = {} if data_sha256 is None else {"data_sha256": data_sha256}
    return {"software": f"soapkrr {__version__}", "date": now.isoformat(), **data}


def data_hash(frames: Sequence[Atoms], values: Iterable[Sequence]) -> str:
    """SHA-256 of structures and the numbers that are learnt of each; the order of the structures does not count."""
    digests = sorted(_structure(atoms, numbers) for atoms, numbers in zip(frames, values, strict=True))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def check_origin(stated: Mapping[str, str], frames: Sequence[Atoms], values: Iterable[Sequence]) -> None:
    """Raise `InputError` unless structures and the numbers learnt of each are those of the fit that ``stated`` is the origin of."""
    if "data_sha256" not in stated:
        raise InputError(
            "the model does not state which data it was fitted to, as files of version 1 and models after an `update` do not; fit it again."
        )
    if data_hash(frames, values) != stated["data_sha256"]:
        raise InputError(
            f"`frames`: these {len(frames)} structures with their labels are not those that the model was fitted to (SHA-256 of the data "
            f"{stated['data_sha256'][:12]}…); give the same ones, all of them, with the same labels."
        )


def _structure(atoms: Atoms, values: Sequence) -> bytes:
    """Of one structure: every array with its length, None as an empty one."""
    sha = hashlib.sha256()
    for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, *values):
        content = b"" if part is None else np.ascontiguousarray(part, dtype="<f8").tobytes()
        sha.update(len(content).to_bytes(8, "little") + content)
    return sha.digest()


def restored_origin(state) -> dict[str, str]:
    """From a model file."""
    if not isinstance(state, dict) or not all(name in ENTRIES and isinstance(value, str) for name, value in state.items()):
        raise ModelFileError(f"`origin` may state {ENTRIES}, received {state!r}.")
    return dict(state)
