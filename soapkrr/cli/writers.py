"""Where `predict` puts its rows: a table, structures with results, or ASE's database; each grows, and can be sorted at the end."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from soapkrr.cli.growing import TextFile, extended_xyz


def writer(path: Path, columns: list[str]):
    """The writer of a file, by its suffix."""
    if path.suffix.lower() == ".csv":
        return Table(path, columns)
    return Database(path) if path.suffix.lower() == ".db" else Structures(path)


class Table(TextFile):
    """Comma-separated values with one line of names."""

    def __init__(self, path: Path, columns: list[str]):
        self.columns = columns
        super().__init__(path, _line(columns))

    def add(self, row: dict, atoms) -> None:
        """Append a row."""
        super().add(_line(["" if row[name] is None else row[name] for name in self.columns]))


def _line(values) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class Structures(TextFile):
    """Extended XYZ: energy, forces and stress as predicted, the rest of the row beside them."""

    def add(self, row: dict, atoms) -> None:
        """Append a structure."""
        atoms.info.update(_beside(row))
        super().add(extended_xyz(atoms))


class Database:
    """ASE's database (SQLite): energy, forces and stress as predicted, the rest of the row as key-value pairs."""

    def __init__(self, path: Path):
        self.path = path
        self._db = _connected(path)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def add(self, row: dict, atoms) -> None:
        """Append a structure."""
        self._db.write(atoms, key_value_pairs=_beside(row))

    def sort(self, order) -> None:
        """Rewrite the file, whole or not at all, with its rows in this order."""
        part = self.path.with_name(f".{self.path.stem}.part.db")
        try:
            sorted_db = _connected(part)
            for k in order:
                row = self._db.get(id=k + 1)
                sorted_db.write(row, key_value_pairs=row.key_value_pairs)
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)


def _connected(path: Path):
    """A new, empty database, which takes its place once its tables are there."""
    from ase.db import connect

    part = path.with_name(f".{path.stem}.empty.db")
    try:
        part.unlink(missing_ok=True)
        connect(part, type="db", use_lock_file=False).count()  # makes the tables
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}-journal").unlink(missing_ok=True)
    return connect(path, type="db", use_lock_file=False)


def _beside(row: dict) -> dict:
    """What of a row stands beside the structure and its results."""
    names = {
        "id": "row",
        "energy_std_ev": "energy_std",
        "forces_std_max_ev_per_angstrom": "forces_std_max",
        "outside": "outside",
        "failed": "predict_failed",
    }
    return {there: row[name] for name, there in names.items() if row[name] is not None}
