"""Names under which programs and data sets store labels, by families: REF_energy with REF_forces, dft_energy with dft_force."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable

from ase import Atoms

from soapkrr.errors import DataWarning
from soapkrr.labels.observations import Observations

#: A label's name: family and quantity, as in REF_energy, dft_virial, mace_forces, energy.
_NAME = re.compile(r"(?:(?P<family>(?!free_energy)\w+?)_)?(?:free_)?(?P<quantity>energy|forces?|stress|virials?)", re.IGNORECASE)

#: Parameter of `Observations` that reads each quantity.
_PARAMETER = {"energy": "energy", "force": "forces", "forces": "forces", "stress": "stress", "virial": "virial", "virials": "virial"}


def family_of(name: str) -> tuple[str, str] | None:
    """Family ("" where there is none) and parameter of `Observations` of a label's name; None where it is no label's."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match["family"] or "", _PARAMETER[match["quantity"].lower()])


def label_names(frames: Iterable[Atoms]) -> dict[str, tuple[str, str]]:
    """{name: (family, parameter)} of what the structures carry in `info` and `arrays` under a label's name, sorted."""
    there = sorted({name for atoms in frames for name in (*atoms.info, *atoms.arrays)})
    return {name: family for name in there if (family := family_of(name)) is not None}


def advice(names: dict[str, tuple[str, str]]) -> str:
    """Which parameters and options read these names, those of the largest family."""
    families = [family for family, _ in names.values()]
    chosen = {parameter: name for name, (family, parameter) in names.items() if family == max(sorted(set(families)), key=families.count)}
    if "stress" in chosen:
        chosen.pop("virial", None)
    parameters = ", ".join(f"{parameter}={name!r}" for parameter, name in chosen.items())
    options = " ".join(f"--{parameter}-key {name}" for parameter, name in chosen.items())
    return f"`Observations({parameters})`, on the command line `{options}`"


def warn_of_unread(frames: Iterable[Atoms], observations: Observations) -> None:
    """Warn where structures carry labels of a family of which others are read, of a kind to be fitted."""
    read = {"energy": observations.energy, "forces": observations.forces, "stress": observations.stress, "virial": observations.virial}
    read = {parameter: name for parameter, name in read.items() if name and _kind(parameter) in observations.use}
    families = {family_of(name)[0] for name in read.values() if family_of(name)} - {""}
    done = {_kind(parameter) for parameter, name in read.items() if (family_of(name) or ("",))[0] in families}
    unread = {
        name: (family, parameter)
        for name, (family, parameter) in label_names(frames).items()
        if family in families and _kind(parameter) in observations.use and _kind(parameter) not in done
    }
    if unread:
        warnings.warn(
            f"the structures carry {', '.join(unread)}, which are not read, though {', '.join(sorted(set(read.values())))} are: "
            f"{advice(unread)} reads them; `use`=... says which kinds are to be fitted.",
            DataWarning,
            stacklevel=5,
        )


def _kind(parameter: str) -> str:
    return "stress" if parameter == "virial" else parameter
