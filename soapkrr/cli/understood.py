"""What a file of structures was understood to hold, said before anything is fitted to it."""

from __future__ import annotations

import sys
from collections import Counter

from soapkrr.display import counted


def understood(frames, path: str, observations) -> dict:
    """Structures, atoms, species, structures with each kind of label and of each config type."""
    from soapkrr.labels import KINDS, read_labels

    labels = read_labels(frames, observations)
    name = "config_type" if observations is None else observations.config_type
    types = Counter(str(atoms.info[name]) for atoms in frames if name in atoms.info)
    return {
        "file": str(path),
        "structures": len(frames),
        "atoms": sum(map(len, frames)),
        "species": sorted(set().union(*(set(atoms.get_chemical_symbols()) for atoms in frames))),
        "labels": {kind: sum(label.has(kind) for label in labels) for kind in KINDS},
        "periodic": sum(bool(atoms.pbc.any()) for atoms in frames),
        "config_types": dict(types),
    }


def as_text(found: dict) -> str:
    """``train.xyz: 211 structures of 1,729 atoms (Si), 210 periodic; energies 211, forces 211, stress 210; config types ...``."""
    labels = ", ".join(f"{kind} {n:,}" for kind, n in found["labels"].items() if n) or "no labels"
    types = ", ".join(f"{name} {n:,}" for name, n in found["config_types"].items())
    head = f"{found['file']}: {counted(found['structures'], 'structure')} of {counted(found['atoms'], 'atom')}"
    species = ", ".join(found["species"])
    return f"{head} ({species}), {found['periodic']:,} periodic; labels: {labels}{types and f'; config types: {types}'}"


def announce(found: dict, quiet: bool) -> None:
    """Say so on a terminal, while there is time to stop."""
    if not quiet and sys.stderr.isatty():
        sys.stderr.write(f"soapkrr: {as_text(found)}\n")
