"""Reference calculations on a disk: what was computed is never lost, and never computed again."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import cast

import numpy as np
from ase import Atoms
from ase.io import read

from soapkrr.active.asking import HeldReference, held
from soapkrr.errors import InputError


class Records:
    """Calculations in the order they were made; with a ``path``, an extended XYZ file that is only ever appended to.

    Numbers are written so that they are read back exactly; every record is on the disk before the next begins, and one that was cut short
    by a kill is dropped.

    Raises
    ------
    InputError : the file cannot be read, or holds structures without energy and forces.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else Path(path)
        self.references: list[HeldReference] = []
        if self.path is not None and self.path.exists():
            self.references = _read(self.path)

    def __len__(self) -> int:
        return len(self.references)

    def find(self, atoms: Atoms) -> HeldReference | None:
        """The calculation of the same structure."""
        return next((reference for reference in self.references if same(reference.atoms, atoms)), None)

    def add(self, reference: HeldReference) -> None:
        """Keep one more."""
        self.references.append(reference)
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(_text(reference).encode())
                file.flush()
                os.fsync(file.fileno())


def same(one: Atoms, other: Atoms) -> bool:
    """Whether two structures are the same to the last bit."""
    pairs = [(one.numbers, other.numbers), (one.positions, other.positions), (one.cell.array, other.cell.array), (one.pbc, other.pbc)]
    return all(np.array_equal(a, b) for a, b in pairs)


def _text(reference: HeldReference) -> str:
    """A frame of extended XYZ, every number with all its digits."""
    atoms = reference.atoms
    stress = {} if reference.stress is None else {"stress": reference.stress}
    parts = {"Lattice": atoms.cell.array, **stress}
    written = {name: " ".join(map(repr, np.asarray(value, dtype=float).ravel().tolist())) for name, value in parts.items()}
    written["pbc"] = " ".join("FT"[int(periodic)] for periodic in atoms.pbc)
    comment = " ".join(f'{name}="{value}"' for name, value in written.items()) + f" energy={reference.energy!r}"
    rows = np.hstack([atoms.positions, reference.forces]).tolist()
    moves = ["TF"[int(fixed)] for fixed in held(atoms)]
    lines = [f"{symbol} {' '.join(map(repr, row))} {free}" for symbol, row, free in zip(atoms.symbols, rows, moves, strict=True)]
    return "\n".join([str(len(atoms)), f"Properties=species:S:1:pos:R:3:forces:R:3:move_mask:L:1 {comment}", *lines, ""])


def _read(path: Path) -> list[HeldReference]:
    """Whole records of a file; what was cut short is taken off its end."""
    text = path.read_text(encoding="utf-8")
    whole = _whole(text, path)
    if len(whole) < len(text):
        with path.open("r+b") as file:
            file.truncate(len(whole.encode()))
    frames = read(StringIO(whole), index=":", format="extxyz") if whole else []
    found = []
    for k, atoms in enumerate(cast("list[Atoms]", frames)):
        results = getattr(atoms.calc, "results", {})
        if not {"energy", "forces"} <= set(results):
            raise InputError(f"{path}, frame {k}: a record needs energy and forces; received {sorted(results)}. Give another path.")
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, constraint=atoms.constraints)
        found.append(HeldReference(bare, float(results["energy"]), np.array(results["forces"], order="C"), results.get("stress")))
    return found


def _whole(text: str, path: Path) -> str:
    """The frames that are complete: a number of atoms, a comment, so many lines, each with its end."""
    lines, at = text.splitlines(keepends=True), 0
    while at < len(lines):
        count = lines[at].strip()
        if not count.isdigit() and lines[at].endswith("\n"):
            raise InputError(f"{path}, line {at + 1}: expected a number of atoms, received {count[:40]!r}; give another path.")
        end = at + int(count or 0) + 2
        if not count.isdigit() or end > len(lines) or not lines[end - 1].endswith("\n"):
            break
        at = end
    return "".join(lines[:at])
