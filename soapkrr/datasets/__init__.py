"""Data sets that come with the package, to try things on."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from typing import NamedTuple

from ase import Atoms

from soapkrr.display import Tabular, only_public
from soapkrr.errors import InputError


class _Split(NamedTuple):
    train: list[Atoms]
    test: list[Atoms]


class DataSet(_Split, Tabular):
    """Labelled structures to fit, and others to measure errors on; shows as a table of what it is.

    Attributes
    ----------
    train, test : structures; ``train, test = load(name)`` takes them apart.
    card : dict of ``name``, ``about``, ``level`` of theory, ``labels``, ``licence``, ``citation``.
    """

    card: dict[str, str]

    def _title(self) -> str:
        return self.card["about"]

    def _columns(self) -> list[str]:
        return ["", self.card["name"]]

    def _rows(self) -> list[list[str]]:
        both = [*self.train, *self.test]
        species = sorted(set().union(*(atoms.get_chemical_symbols() for atoms in both)))
        sizes = [f"{len(part):,} ({sum(map(len, part)):,} atoms)" for part in self]
        told = [[word, self.card[word]] for word in ("level", "labels", "licence", "citation")]
        return [["train", sizes[0]], ["test", sizes[1]], ["species", ", ".join(species)], *told]

    __repr__ = Tabular.__repr__


def names() -> list[str]:
    """The sets that there are.

    Examples
    --------
    >>> "silicon" in names()
    True
    """
    return sorted(folder.name for folder in files(__name__).iterdir() if (folder / "card.json").is_file())


def load(name: str) -> DataSet:
    """One of the sets that come with the package, by its name.

    How each was computed, and how far it is converged, is in ``data/NAME/README.md`` of the repository.

    Parameters
    ----------
    name : one of `names`.

    Returns
    -------
    `DataSet`, structures read anew with each call: energies (eV), forces (eV/Å) and, of solids, stresses (eV/Å³).

    Raises
    ------
    InputError : there is no such set.

    Examples
    --------
    >>> train, test = load("silicon")
    >>> len(train), len(test)
    (211, 47)
    """
    if name not in names():
        raise InputError(f"`name` must be one of {names()}, received {name!r}.")
    found = DataSet(_structures(f"{name}/train.xyz"), _structures(f"{name}/test.xyz"))
    found.card = json.loads((files(__name__) / name / "card.json").read_text(encoding="utf-8"))
    return found


def silicon() -> DataSet:
    """Silicon from density-functional theory (PBE): 211 structures to fit, 47 to test, of 1 to 16 atoms; ``load("silicon")``.

    Strained, rattled and hot diamond, vacancies, slabs, liquid, high-pressure phases and one isolated atom, named by
    ``info["config_type"]``. Free energies (eV), forces (eV/Å) and, of all but the isolated atom, stresses (eV/Å³).

    Examples
    --------
    >>> train, test = silicon()
    >>> float(train[0].get_potential_energy())
    -0.8493148704815591
    """
    return load("silicon")


def _structures(name: str) -> list[Atoms]:
    from ase.io import read

    return read(io.StringIO((files(__name__) / name).read_text(encoding="utf-8")), ":", format="extxyz")


__dir__ = only_public(__name__)
