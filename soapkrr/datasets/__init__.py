"""Data sets that come with the package, to try things on."""

from __future__ import annotations

import io
from importlib.resources import files
from typing import NamedTuple

from ase import Atoms

from soapkrr.display import only_public


class DataSet(NamedTuple):
    """Labelled structures to fit, and others to measure errors on."""

    train: list[Atoms]
    test: list[Atoms]


def silicon() -> DataSet:
    """Silicon from density-functional theory (PBE): 211 structures to fit, 47 to test, of 1 to 16 atoms.

    Strained, rattled and hot diamond, vacancies, slabs, liquid, high-pressure phases and one isolated atom, named by
    ``info["config_type"]``. Free energies (eV), forces (eV/Å) and, of all but the isolated atom, stresses (eV/Å³). How they were computed,
    and how far they are converged, is in ``data/silicon/README.md`` of the repository.

    Returns
    -------
    ``(train, test)``, structures read anew with each call.

    Examples
    --------
    >>> train, test = silicon()
    >>> len(train), len(test)
    (211, 47)
    >>> float(train[0].get_potential_energy())
    -0.8493148704815591
    """
    return DataSet(_structures("silicon/train.xyz"), _structures("silicon/test.xyz"))


def _structures(name: str) -> list[Atoms]:
    from ase.io import read

    return read(io.StringIO((files(__name__) / name).read_text(encoding="utf-8")), ":", format="extxyz")


__dir__ = only_public(__name__)
