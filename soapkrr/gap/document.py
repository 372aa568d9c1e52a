"""The XML of a Gaussian approximation potential: its parts as they are written, checked for what is not understood."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from soapkrr.errors import InputError

#: Parts of ``GAP_params`` that are read, and those that say nothing of the energy.
READ, SILENT = {"GAP_data", "gpSparse", "command_line", "XYZ_data"}, {"GAP_version"}

#: Parameters of a descriptor that only its fit used.
OF_THE_FIT = {
    "add_species", "n_sparse", "sparse_method", "delta", "covariance_type", "zeta", "f0", "theta_uniform", "theta_fac", "theta_file",
    "config_type_n_sparse", "sparse_file", "print_sparse_index", "mark_sparse_atoms", "unique_descriptor_tolerance", "theta",
    "unique_hash_tolerance", "sparse_separate_file", "xml_version",
}  # fmt: skip

#: ``name=value`` and ``name={values}``.
PARAMETER = re.compile(r'(\w+)\s*=\s*(\{[^}]*\}|"[^"]*"|[^\s{}]+)')


@dataclass(frozen=True)
class Coordinates:
    """One ``gpCoordinates``: a descriptor with its sparse points.

    Attributes
    ----------
    name : of the descriptor, ``"soap"`` for example.  parameters : {name: text} of its string, without those of the fit alone.
    covariance : number of the kernel.  delta : eV.  zeta : exponent.  theta : length scales.
    points : (n, dimensions).  weights : (n,) coefficients α times the cutoffs of sparse points.
    """

    name: str
    parameters: dict[str, str]
    covariance: str
    delta: float
    zeta: float
    theta: np.ndarray
    points: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Document:
    """What the file of a potential says.

    Attributes
    ----------
    version : of the program, 0 where it is not said.  e0 : {atomic number: eV}.  coordinates : its descriptors.
    core : the element ``Glue_params`` of a core potential, or None.
    command : of the fit.  training : lines of extended XYZ that are embedded.
    """

    version: int
    e0: dict[int, float]
    coordinates: list[Coordinates]
    core: ElementTree.Element | None
    command: str
    training: str


def parsed(path: str | os.PathLike) -> ElementTree.Element:
    """The tree of an XML file; one that declares a document type, and with it entities, is refused.

    Raises
    ------
    InputError : it is no XML, or has a document type.  FileNotFoundError : there is no such file.
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = builder.start, builder.end, builder.data

    def refuse(*_):
        raise InputError(f"{os.fspath(path)} declares a document type (<!DOCTYPE …>): potentials need none, and its entities are refused.")

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(Path(path).read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, AssertionError) as error:
        raise InputError(f"{os.fspath(path)} is no readable XML file: {error}.") from error


def read_document(path: str | os.PathLike) -> Document:
    """The parts of a potential's file; sparse points are read from the files beside it.

    Raises
    ------
    InputError : the file, or one beside it, is not understood; the message says which part.  FileNotFoundError : a file is missing.
    """
    root = parsed(path)
    found = [root] if root.tag == "GAP_params" else root.findall("GAP_params")
    if len(found) != 1:
        raise InputError(f"{os.fspath(path)} has {len(found)} parts <GAP_params>, expected one: it is no file of a single GAP.")
    params = found[0]
    unknown = sorted({part.tag for part in params} - READ - SILENT) + _unknown_beside(root) * (root is not params)
    if unknown:
        raise InputError(f"{os.fspath(path)} has the part <{unknown[0]}>, which is not understood.")
    data, sparse = params.find("GAP_data"), params.find("gpSparse")
    if data is None or sparse is None:
        raise InputError(f"{os.fspath(path)} has no <{'GAP_data' if data is None else 'gpSparse'}>: no energy can be computed.")
    core = root.find(".//Glue_params") if root is not params else None
    if _truth(data.get("do_core", "F"), "do_core") != (core is not None):
        raise InputError("`do_core` and the core potential contradict each other: only a <Glue_params> in the same file is understood.")
    return Document(
        version=int(params.get("gap_version", "0")),
        e0=_reference_energies(data),
        coordinates=[_coordinates(part, Path(path).parent) for part in sparse],
        core=core,
        command=(params.findtext("command_line") or "").strip(),
        training="\n".join(line.strip() for line in (params.findtext("XYZ_data") or "").splitlines() if line.strip()),
    )


def _unknown_beside(root: ElementTree.Element) -> list[str]:
    """What stands beside ``GAP_params`` and is neither the name of the potential nor a core potential."""
    known = {"Potential", "GAP_params", "Glue_params"}
    return sorted({part.tag for part in root if part.tag not in known and [inner.tag for inner in part] != ["Glue_params"]})


def _reference_energies(data: ElementTree.Element) -> dict[int, float]:
    unknown = sorted({part.tag for part in data} - {"e0"}) + sorted(set(data.attrib) - {"do_core", "e0"})
    if unknown:
        raise InputError(f"<GAP_data> has `{unknown[0]}`, which is not understood.")
    everywhere = dict.fromkeys(range(1, 119), float(data.get("e0", "0")))
    return everywhere | {int(part.get("Z", "0")): float(part.get("value", "nan")) for part in data}


#: Attributes of ``gpCoordinates`` that are read, and values that others must have.
_ATTRIBUTES = {
    "label", "dimensions", "signal_variance", "covariance_type", "zeta", "n_sparseX", "sparseX_filename", "sparseX_md5sum",
}  # fmt: skip
_FIXED = {"signal_mean": 0.0, "n_permutations": 1.0}


def _coordinates(part: ElementTree.Element, folder: Path) -> Coordinates:
    if part.tag != "gpCoordinates":
        raise InputError(f"<gpSparse> has the part <{part.tag}>, which is not understood.")
    for name, value in part.attrib.items():
        fits = float(value) == _FIXED[name] if name in _FIXED else name in _ATTRIBUTES or (name == "sparsified" and _truth(value, name))
        if not fits:
            raise InputError(f"<gpCoordinates> has `{name}`={value!r}, which is not understood.")
    unknown = sorted({inner.tag for inner in part} - {"theta", "descriptor", "permutation", "sparseX"})
    if unknown:
        raise InputError(f"<gpCoordinates> has the part <{unknown[0]}>, which is not understood.")
    name, _, text = (part.findtext("descriptor") or "").strip().partition(" ")
    sparse, n = part.findall("sparseX"), int(part.get("n_sparseX", "-1"))
    if len(sparse) != n:
        raise InputError(f"`{part.get('label')}` ({name}) has {len(sparse)} <sparseX>, but `n_sparseX`={n}.")
    weights = np.array([float(x.get("alpha", "nan")) * float(x.get("sparseCutoff", "1")) for x in sparse])
    return Coordinates(
        name,
        parameters(text),
        part.get("covariance_type", ""),
        float(part.get("signal_variance", "nan")),
        float(part.get("zeta", "nan")),
        np.array((part.findtext("theta") or "").split(), dtype=float),
        _points(part, sparse, folder),
        weights,
    )


def parameters(text: str) -> dict[str, str]:
    """{name: value} of a string of parameters, braces and quotes taken off, without those that only a fit used."""
    rest = PARAMETER.sub("", text).split()
    if rest:
        raise InputError(f"the descriptor string has {rest[0]!r}, which is no `name=value`.")
    return {name: value.strip('{}"').strip() for name, value in PARAMETER.findall(text) if name not in OF_THE_FIT}


def _points(part: ElementTree.Element, sparse: list[ElementTree.Element], folder: Path) -> np.ndarray:
    """(n, dimensions) sparse points, of the file beside the XML or inside of it."""
    n, d, name = len(sparse), int(part.get("dimensions", "0")), part.get("sparseX_filename")
    if name is None:
        numbers = np.array([x for point in sparse for x in (point.text or "").split()], dtype=float)
        where = f"<sparseX> of `{part.get('label')}`"
    else:
        file = folder / Path(name).name
        content, where = file.read_bytes(), file.name
        try:
            numbers = np.array(content.split(), dtype=float)
        except ValueError as error:
            raise InputError(f"{where} holds something else than numbers: {error}.") from error
    if len(numbers) != n * d:
        raise InputError(f"{where} has {len(numbers)} numbers, expected {n} sparse points × {d} = {n * d}.")
    known = part.get("sparseX_md5sum")
    if name is not None and known and hashlib.md5(content, usedforsecurity=False).hexdigest() != known:
        raise InputError(f"{where} is not the file that the potential was written with (its MD5 sum is another): fetch both again.")
    if not np.isfinite(numbers).all():
        raise InputError(f"{where} holds numbers that are not finite.")
    return numbers.reshape(n, d)


def _truth(text: str, name: str) -> bool:
    """A Fortran logical."""
    word = text.strip().strip(".").upper()
    if word not in ("T", "F", "TRUE", "FALSE"):
        raise InputError(f"`{name}` must be T or F, received {text!r}.")
    return word.startswith("T")
