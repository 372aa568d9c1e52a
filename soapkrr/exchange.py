"""Structures with predictions in extended XYZ, as other programs read it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import StringIO

import numpy as np
from ase import Atoms
from ase.io import write as write_structures

from soapkrr.errors import InputError
from soapkrr.export import labelled_copies
from soapkrr.modelfile import check_writable, write_whole
from soapkrr.prediction import Prediction


def write(path: str | os.PathLike, frames: Atoms | Iterable[Atoms], prediction: Prediction) -> None:
    """Write structures and what was predicted of them as extended XYZ, whole or not at all.

    Columns of atoms, those of standard deviations where the prediction has them: ``forces`` and ``forces_std`` (eV/Å), ``force_std`` (the
    norm √Σσ² of the latter, one number to colour by), ``energies``, ``local_energy`` and ``local_energy_std`` (eV; ``energies`` is the name
    that ASE reads as a result, the other one is an array wherever it is read) and ``novelty`` of a calibrated model. In the comment line
    ``energy``, ``stress``, ``energy_std``, ``stress_std``, ``largest_force_std``, ``largest_novelty`` and ``outside``.

    OVITO shows columns as particle properties; `chemiscope.extract_properties` of the structures read back takes all of them.

    Parameters
    ----------
    path : its name ends in .xyz or .extxyz.
    frames : the structures that were predicted.  prediction : of ``model.predict(frames, uncertainty=True)``.

    Raises
    ------
    InputError : no such file can be written there, or ``frames`` are not the structures that were predicted.

    Examples
    --------
    >>> import soapkrr, tempfile
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.55, 3.6, 3.65, 3.7)]
    >>> for atoms in frames:
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_potential_energy()
    >>> model = soapkrr.fit(frames, search=False)
    >>> soapkrr.write(tempfile.mkdtemp() + "/predicted.xyz", frames, model.predict(frames, uncertainty=True))
    """
    target = check_writable(path)
    if target.suffix.lower() not in (".xyz", ".extxyz"):
        raise InputError(f"`path` {target}: extended XYZ is written, so the name must end in .xyz or .extxyz.")
    if not isinstance(prediction, Prediction):
        raise InputError(f"`prediction` must be what `model.predict(frames)` returns, received {type(prediction).__name__}.")
    copies = [_with_columns(atoms, prediction, s) for s, atoms in enumerate(labelled_copies(frames, prediction))]
    write_whole(target, lambda file: file.writelines(extended_xyz(atoms).encode() for atoms in copies))


def extended_xyz(atoms: Atoms) -> str:
    """One structure as extended XYZ."""
    text = StringIO()
    write_structures(text, atoms, format="extxyz")
    return text.getvalue()


def _with_columns(atoms: Atoms, prediction: Prediction, s: int) -> Atoms:
    """A labelled copy, changed: what is of atoms stands in columns alone, each under one name."""
    for name in ("energies_std", "forces_std"):
        atoms.info.pop(name, None)
    atoms.set_array("local_energy", np.array(prediction.energies[s]))
    if "energies_std" in atoms.arrays:
        atoms.set_array("local_energy_std", atoms.arrays.pop("energies_std"))
    if "forces_std" in atoms.arrays:
        size = np.linalg.norm(atoms.arrays["forces_std"], axis=1)
        atoms.set_array("force_std", size)
        atoms.info["largest_force_std"] = float(size.max())
    novelty = getattr(prediction, "novelty", None)
    if novelty is not None:
        atoms.set_array("novelty", np.array(novelty[s]))
        atoms.info["largest_novelty"] = float(novelty[s].max())
    if prediction.outside is not None:
        atoms.info["outside"] = bool(prediction.outside[s])
    return atoms
