"""What a run of dynamics on the fly remembers: its calls, what it saw on the way, and its state on a disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.jsonio import decode, encode
from ase.optimize.optimize import Dynamics

from soapkrr.errors import InputError
from soapkrr.modelfile.writing import write_whole


@dataclass(frozen=True)
class Call:
    """One reference calculation of a run.

    Attributes
    ----------
    step : of the dynamics.  deviation : the largest standard deviation of a force there, eV/Å; infinite where no model was.
    error : the largest error of a force, eV/Å; NaN where there was no model, or the reference failed.  failure : its message, or "".
    """

    step: int
    deviation: float
    error: float = np.nan
    failure: str = ""


@dataclass(frozen=True)
class Look:
    """What was seen at one step.

    Attributes
    ----------
    step : of the dynamics.  temperature : K.  doubt : how wrong a force may be, eV/Å, which is held against the threshold.
    """

    step: int
    temperature: float
    doubt: float


@dataclass
class State:
    """Where a run is after its last call: atoms, random numbers, calls, looks, and how many calculations were learnt from."""

    step: int
    learnt: int
    calls: list[Call]
    looks: list[Look]
    random: object
    threshold: float
    atoms: dict

    @classmethod
    def read(cls, path: Path, atoms: Atoms) -> State:
        """Of a file, for a run of these atoms; raises `InputError` where it is no state, or one of others."""
        try:
            found = decode(path.read_text(encoding="utf-8"))
            state = cls(**{name: found[name] for name in cls.__dataclass_fields__})
            state.calls = [Call(**call) for call in state.calls]
            state.looks = [Look(*look) for look in found["looks"]]
            numbers = state.atoms["numbers"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no state of a run ({error}); give another `folder`.") from error
        if not np.array_equal(numbers, atoms.numbers):
            raise InputError(f"{path} is the state of a run of other atoms; give another `folder`.")
        return state

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        looks = [[look.step, look.temperature, look.doubt] for look in self.looks]
        text = encode(vars(self) | {"calls": [vars(call) for call in self.calls], "looks": looks})
        write_whole(path, lambda file: file.write(text.encode()))

    def put(self, atoms: Atoms) -> None:
        """Move atoms to where they were."""
        atoms.set_cell(self.atoms["cell"])
        atoms.set_positions(self.atoms["positions"], apply_constraint=False)
        atoms.set_momenta(self.atoms["momenta"], apply_constraint=False)


def place_of(atoms: Atoms) -> dict:
    """Where atoms are and how they move."""
    return {"numbers": atoms.numbers, "positions": atoms.positions, "momenta": atoms.get_momenta(), "cell": atoms.cell.array}


def random_of(dynamics: Dynamics):
    """The state of the random numbers of a dynamics; None where it has none."""
    source = getattr(dynamics, "rng", None)
    if hasattr(source, "bit_generator"):
        return source.bit_generator.state
    return list(source.get_state()) if hasattr(source, "get_state") else None


def set_random(dynamics: Dynamics, state) -> None:
    """Random numbers that go on where others stopped."""
    source = getattr(dynamics, "rng", None)
    if state is None or source is None:
        return
    if hasattr(source, "bit_generator"):
        source.bit_generator.state = state
    else:
        source.set_state(tuple(state))
