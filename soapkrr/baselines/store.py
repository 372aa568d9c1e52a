"""Results of prior means on a disk: one small file for each structure, found by its content, whole or not there.

Any number of processes may read and write at once: a file is written beside its place and renamed, and two that write the same write
equal bytes. What is damaged is computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soapkrr.baselines.results import Result, Structure
from soapkrr.errors import InputError

logger = logging.getLogger(__name__)

#: Environment variable with the folder of results; empty, "off" or "none": they are not kept.
VARIABLE = "SOAPKRR_CACHE"

#: The folder given by `keep_results`, or None that was; empty where nothing was given.
_GIVEN: list[Path | None] = []


@dataclass(frozen=True)
class Store:
    """A folder of results of one prior mean."""

    folder: Path

    def read(self, structure: Structure) -> Result | None:
        """The result of a structure; None where there is none, or none that is whole."""
        try:
            content = self._path(structure).read_bytes()
        except OSError:
            return None
        n = len(structure.numbers)
        digest, numbers = content[:32], content[32:]
        if len(numbers) != 8 * (4 * n + 6) or hashlib.sha256(structure.key + numbers).digest() != digest:
            return None
        values = np.frombuffer(numbers, "<f8").astype(float)
        return Result(values[:n], values[n : 4 * n].reshape(n, 3), values[4 * n :])

    def write(self, structure: Structure, result: Result) -> None:
        """Keep a result; where the disk refuses, it is not kept."""
        parts = (result.energies, result.forces, result.strain)
        numbers = b"".join(np.ascontiguousarray(part, dtype="<f8").tobytes() for part in parts)
        path = self._path(structure)
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(hashlib.sha256(structure.key + numbers).digest() + numbers)
                os.replace(temporary, path)
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as error:
            logger.info("a result of a prior mean is not kept in %s: %s", self.folder, error)

    def _path(self, structure: Structure) -> Path:
        name = structure.key.hex()
        return self.folder / name[:2] / name[2:]


def keep_results(folder: str | os.PathLike | None) -> None:
    """Where results of named prior means are kept on a disk from now on; None: nowhere.

    Without it they are in the folder that the environment variable ``SOAPKRR_CACHE`` names (empty, "off" or "none": nowhere), else in
    ``$XDG_CACHE_HOME/soapkrr``, or ``~/.cache/soapkrr``. Folders can be deleted at any time.

    Raises
    ------
    InputError : ``folder`` is a file.
    """
    folder = None if folder is None else Path(folder).expanduser().absolute()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InputError(f"`folder` must be a folder, or one that can be made; {folder} is a file.")
    _GIVEN[:] = [folder]


def folder_of_results() -> Path | None:
    """The folder in which results are kept; None where they are not."""
    if _GIVEN:
        return _GIVEN[0]
    text = os.environ.get(VARIABLE)
    if text is not None:
        return None if text.strip().lower() in ("", "off", "none") else Path(text).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "soapkrr"
    except RuntimeError:  # nobody's home
        return None


def store_for(name: str, stamp: str | None) -> Store | None:
    """The store of a prior mean by its name with options and what else its results depend on; None where they are not kept."""
    folder = folder_of_results()
    if folder is None or stamp is None:
        return None
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{name} {stamp}").strip("-")[:60]
    return Store(folder / "baselines" / f"{readable}-{hashlib.sha256(f'{name}|{stamp}'.encode()).hexdigest()[:12]}")
