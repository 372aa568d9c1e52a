"""Structures that make sense: finite, of elements, with cells that span as many directions as are periodic."""

from __future__ import annotations

from math import hypot, inf

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from soapkrr.errors import InputError

#: Atoms closer than this are taken to be the same atom written twice (Å).
COINCIDENT = 1e-2

#: Positions from here on are rounded to more than 1e-6 Å (Å).
FARTHEST = 2.0**33

#: Volume of a cell, by the product of its lengths, below which its vectors count as linearly dependent.
DEPENDENT = 1e-13


def check_structure(atoms: Atoms, index: int) -> None:
    """Raise `InputError`, naming structure and atom, unless elements, positions and cell make sense."""
    if not isinstance(atoms, Atoms):
        raise InputError(f"frame {index}: expected an ase.Atoms object, received {type(atoms).__name__}.")
    if len(atoms) == 0:
        raise InputError(f"frame {index} has no atoms; remove it from the list.")
    if not np.abs(atoms.positions).max() < FARTHEST:
        _refuse_position(atoms.positions, index)
    numbers = atoms.numbers
    if numbers.min() < 1 or numbers.max() >= len(chemical_symbols):
        atom = int(np.flatnonzero((numbers < 1) | (numbers >= len(chemical_symbols)))[0])
        raise InputError(f"frame {index}, atom {atom}: atomic number {numbers[atom]} is not an element (1 to {len(chemical_symbols) - 1}).")
    _check_cell(atoms.cell.array.tolist(), atoms.pbc.tolist(), index)


def _refuse_position(positions: np.ndarray, index: int) -> None:
    atom = int(np.flatnonzero(~(np.abs(positions) < FARTHEST).all(axis=1))[0])
    where = f"frame {index}, atom {atom}: position {positions[atom]}"
    if not np.isfinite(positions[atom]).all():
        raise InputError(f"{where} is not finite.")
    raise InputError(f"{where} is too far from the origin to be known to 1e-6 Å; wrap it into the cell, or check the unit (Å).")


def _check_cell(cell: list[list[float]], pbc: list[bool], index: int) -> None:
    """Raise `InputError` unless the cell is finite and its periodic vectors span as many directions; the others are not used."""
    lengths = [hypot(*vector) for vector in cell]
    for axis, length in enumerate(lengths):
        if not length < inf:
            raise InputError(f"frame {index}: cell vector {axis}, {cell[axis]}, is not finite; give it, or zero where `pbc` is False.")
        if pbc[axis] and not COINCIDENT < length < FARTHEST:
            raise InputError(
                f"frame {index}: periodic along axis {axis}, but cell vector {axis} is {_size(length)}; "
                "give the cell or set `pbc` to False there."
            )
    units = [[x / length for x in vector] for vector, length, periodic in zip(cell, lengths, pbc, strict=True) if periodic]
    if len(units) > 1 and _volume(*units) < DEPENDENT:
        raise InputError(f"frame {index}: the cell vectors are linearly dependent; check the cell.")


def _size(length: float) -> str:
    if length == 0:
        return "zero"
    return f"{length:.3g} Å long ({'atoms would be their own neighbours' if length < 1 else 'too long to be known to 1e-6 Å'})"


def _volume(a: list[float], b: list[float], c: list[float] | None = None) -> float:
    """Volume of the cell of three vectors, or the area of two."""
    across = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return hypot(*across) if c is None else abs(sum(x * y for x, y in zip(across, c, strict=True)))
