"""Predictions as data frames and as labelled structures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr.errors import InputError

VOIGT_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


def data_frame(columns: dict):
    """`pandas.DataFrame` of columns."""
    try:
        import pandas
    except ImportError as error:
        raise InputError("data frames need pandas, which is not installed: pip install pandas.") from error
    return pandas.DataFrame(columns)


def structure_columns(prediction) -> dict[str, np.ndarray]:
    """{name: one value for each structure}: numbers of atoms, energies, components of the stress, and their standard deviations;
    the largest novelty of its atoms, and whether atoms are closer than in the training data."""
    columns = {"n_atoms": np.array([len(e) for e in prediction.energies]), "energy": prediction.energy}
    if prediction.energy_std is not None:
        columns["energy_std"] = prediction.energy_std
    for name in ("stress", "stress_std"):
        values = getattr(prediction, name)
        if values is not None:
            columns |= {f"{name}_{axes}": values[:, k] for k, axes in enumerate(VOIGT_NAMES)}
    if getattr(prediction, "novelty", None) is not None:
        columns["novelty"] = np.array([novelty.max() for novelty in prediction.novelty])
    return columns if prediction.outside is None else columns | {"outside": prediction.outside}


def atom_columns(prediction) -> dict[str, np.ndarray]:
    """{name: one value for each atom}: structure, index in it, energy, components of the force, their standard deviations, novelty."""
    sizes = [len(e) for e in prediction.energies]
    columns = {"structure": np.repeat(np.arange(len(sizes)), sizes), "atom": np.concatenate([np.arange(n) for n in sizes])}
    for name, column in (("energies", "energy"), ("energies_std", "energy_std")):
        if getattr(prediction, name) is not None:
            columns[column] = np.concatenate(getattr(prediction, name))
    for name, column in (("forces", "force"), ("forces_std", "force_std")):
        if getattr(prediction, name) is not None:
            columns |= {f"{column}_{axis}": np.concatenate(getattr(prediction, name))[:, k] for k, axis in enumerate("xyz")}
    if getattr(prediction, "novelty", None) is not None:
        columns["novelty"] = np.concatenate(prediction.novelty)
    return columns


def labelled_copies(frames: Atoms | Iterable[Atoms], prediction) -> list[Atoms]:
    """Copies of structures that carry a prediction; see `Prediction.to_atoms`."""
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    if len(frames) != len(prediction):
        raise InputError(
            f"`frames` holds {len(frames)} structures, the prediction is of {len(prediction)}: pass those that were predicted."
        )
    return [_labelled(atoms, prediction, s) for s, atoms in enumerate(frames)]


def _labelled(atoms: Atoms, prediction, s: int) -> Atoms:
    n = len(prediction.energies[s])
    if len(atoms) != n:
        raise InputError(f"`frames`: frame {s} has {len(atoms)} atoms, the prediction is of {n}: pass those that were predicted.")
    atoms = atoms.copy()
    energy = float(prediction.energy[s])
    results = {"energy": energy, "free_energy": energy, "energies": prediction.energies[s], "forces": prediction.forces[s]}
    if np.isfinite(prediction.stress[s]).all():
        results["stress"] = prediction.stress[s]
    atoms.calc = SinglePointCalculator(atoms, **results)
    for name in ("energy_std", "energies_std", "forces_std", "stress_std"):
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
        if getattr(prediction, name) is not None:
            _put(atoms, name, getattr(prediction, name)[s])
    return atoms


def _put(atoms: Atoms, name: str, std) -> None:
    """Into `info`, which trajectories keep; what is of atoms also into `arrays`, the columns of extended XYZ."""
    if not np.isfinite(std).all():
        return
    atoms.info[name] = np.array(std) if np.ndim(std) else float(std)
    if name in ("energies_std", "forces_std"):
        atoms.set_array(name, np.array(std))
