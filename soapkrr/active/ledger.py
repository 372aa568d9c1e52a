"""The rows of a screening in an ASE database: appended group by group, each whole or not at all, whatever ends the work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError

#: Columns of a row that a decision on all candidates writes, anew whenever it is made.
DECIDED = ("rank", "probability", "duplicate_of", "next_label")


class Ledger:
    """An ASE database of candidates, one row each, in the order of the source.

    Parameters
    ----------
    path : the file.  identity : what the rows depend on, names and texts; a file of another screening is refused.

    Raises
    ------
    InputError : the file is something else, or of another screening.
    """

    def __init__(self, path: Path, identity: Mapping[str, str]):
        self.path = path
        if path.exists() and path.stat().st_size:
            _check(path, identity)
        else:
            _create(path, identity)
        self._db = _connected(path)
        there = [(row.candidate, row.id, row.digest) for row in self.rows(structures=False)]
        self._numbers = {candidate: number for candidate, number, _ in there}
        self.done = {candidate: digest for candidate, _, digest in there}

    def add(self, rows: list[tuple[Atoms, dict, dict]]) -> None:
        """Append (structure, values, data) of a group, in one transaction."""
        with self._db:
            for atoms, values, data in rows:
                self._numbers[values["candidate"]] = self._db.write(atoms, key_value_pairs=values, data=data)
        self.done |= {values["candidate"]: values["digest"] for _, values, _ in rows}

    def rows(self, structures: bool = True) -> Iterator:
        """Rows in the order of the candidates."""
        yield from self._db.select(sort="id", columns="all" if structures else ["id", "key_value_pairs"])

    def structures(self, candidates: Iterable[int]) -> dict[int, Atoms]:
        """{candidate: structure} of some."""
        return {k: self._db.get(id=self._numbers[int(k)]).toatoms() for k in candidates}

    def decide(self, decided: Mapping[int, Mapping]) -> None:
        """Write the columns of a decision, {candidate: {name: value}}, into all rows in one transaction."""
        found = {row.id: (row.candidate, row.key_value_pairs) for row in self.rows(structures=False)}
        with self._db:
            for number, (candidate, there) in found.items():
                new = {name: value for name, value in decided.get(candidate, {}).items() if value is not None}
                old = {name: there[name] for name in DECIDED if name in there}
                if new != old:
                    self._db.update(number, delete_keys=[name for name in old if name not in new], **new)


def _connected(path: Path) -> Any:
    from ase.db import connect

    return connect(path, type="db", use_lock_file=False)


def _create(path: Path, identity: Mapping[str, str]) -> None:
    """A new, empty database, which takes its place once its tables and its identity are there."""
    part = path.with_name(f".{path.stem}.empty.db")
    try:
        part.unlink(missing_ok=True)
        _connected(part).metadata = {"soapkrr_screening": dict(identity)}
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}-journal").unlink(missing_ok=True)


def _check(path: Path, identity: Mapping[str, str]) -> None:
    """Raise `InputError` unless the file holds a screening of this identity."""
    try:
        stated = _connected(path).metadata.get("soapkrr_screening")
    except Exception as error:  # sqlite3.DatabaseError, or what ASE makes of it
        raise InputError(f"`output`: {path} is no database of ASE ({error}); choose another name.") from error
    if stated is None:
        raise InputError(f"`output`: {path} is no result of a screening; choose another name.")
    other = [name for name, text in identity.items() if stated.get(name) != text]
    if other:
        raise InputError(
            f"`output`: {path} is of another screening: {', '.join(other)} {'differs' if len(other) == 1 else 'differ'}; choose another "
            "name, or remove the file to start again."
        )


def plain(values: Mapping) -> dict:
    """Values that a database takes: Python's numbers and text, without None and what is not finite."""
    found = {}
    for name, value in values.items():
        value = value.item() if isinstance(value, np.generic) else value
        if value is not None and not (isinstance(value, float) and not np.isfinite(value)):
            found[name] = value
    return found
