"""Values that structures carry: results of their calculator, `info` and `arrays`."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.stress import full_3x3_to_voigt_6_stress

from soapkrr.errors import LabelError
from soapkrr.labels.observations import Observations


def lookup(atoms: Atoms, name: str, index: int, per_atom: bool):
    """The value called ``name``: of the calculator if ASE knows the name, else of `arrays` (``per_atom``) or `info`; None if absent."""
    value = calculated(atoms, name, index) if name in all_properties else None
    return (atoms.arrays if per_atom else atoms.info).get(name) if value is None else value


def calculated(atoms: Atoms, name: str, index: int):
    if atoms.calc is None or name not in getattr(atoms.calc, "results", {}):
        return None
    if atoms.calc.check_state(atoms):
        raise LabelError(f"frame {index} was changed after its labels were computed: the stored {name} does not belong to it any more.")
    return atoms.calc.results[name]


def numeric(value, name: str, index: int) -> np.ndarray:
    """``value`` as an array of floats."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        return array.astype(float)
    except (TypeError, ValueError) as error:
        raise LabelError(f"frame {index}: `{name}` is {shown(value)}, which is not a number or an array of real numbers.") from error


def shown(value, most: int = 60) -> str:
    """A value as a message has it: on one line, of so many characters at most."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[:most]} ..."


def voigt(value, name: str, index: int) -> np.ndarray:
    """(6,) from (6,) in Voigt order, (3, 3) or (9,)."""
    value = numeric(value, name, index)
    if value.shape in ((3, 3), (9,)):
        value = full_3x3_to_voigt_6_stress(value.reshape(3, 3))
    if value.shape != (6,):
        raise LabelError(f"frame {index}: `{name}` has shape {value.shape}, expected (6,) in Voigt order, (3, 3) or (9,).")
    return value


def config_type(atoms: Atoms, name: str = "config_type") -> str:
    """Configuration type of a structure, `info` [name]; ``"default"`` where it states none."""
    return str(atoms.info.get(name, "default"))


def stated_types(frames: list[Atoms], observations: Observations | None = None) -> np.ndarray:
    """(n_structures,) configuration types, ``""`` where none is stated."""
    name = "config_type" if observations is None else observations.config_type
    return np.array([str(atoms.info.get(name, "")) for atoms in frames], dtype=str)
