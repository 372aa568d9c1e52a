"""Reference energies per species, subtracted from the data before the fit: −4000 eV of core electrons must not hurt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr.errors import InputError
from soapkrr.labels.labels import Labels
from soapkrr.structures import species_name


def reference_energies(frames: list[Atoms], labels: list[Labels], baseline: Mapping[str, float] | str | None) -> dict[str, float]:
    """Energy of one atom of each species, eV.

    ``baseline`` is a mapping {symbol: eV} that names every species; ``"isolated"``: taken from the frames of one atom without neighbours
    (one per species); ``"least-squares"``: Σ_s n_s e_s fitted to the energies; None: isolated atoms if every species has one,
    otherwise least squares. Without any energy label the references are zero.
    """
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    if isinstance(baseline, Mapping):
        return _given(species, baseline)
    if baseline not in (None, "isolated", "least-squares"):
        raise InputError(f"`baseline` must be a mapping, 'isolated', 'least-squares' or None, received {baseline!r}.")
    isolated = {
        int(atoms.numbers[0]): label.energy
        for atoms, label in zip(frames, labels, strict=True)
        if len(atoms) == 1 and not atoms.pbc.any() and np.isfinite(label.energy)
    }
    missing = [species_name(z) for z in species if z not in isolated]
    if baseline == "isolated" and missing:
        raise InputError(f"`baseline`='isolated', but no isolated atom with an energy is among the frames for {missing}.")
    if baseline == "least-squares" or missing:
        return _least_squares(frames, labels, species)
    return {species_name(z): float(isolated[z]) for z in species}


def _given(species: list[int], baseline: Mapping[str, float]) -> dict[str, float]:
    unknown = [symbol for symbol in baseline if symbol not in atomic_numbers]
    missing = [species_name(z) for z in species if species_name(z) not in baseline]
    if unknown or missing:
        raise InputError(f"`baseline` must name every species once: missing {missing}, not elements {unknown}.")
    bad = [symbol for symbol, energy in baseline.items() if not np.isfinite(energy)]
    if bad:
        raise InputError(f"`baseline` is not finite for {bad}.")
    return {symbol: float(energy) for symbol, energy in baseline.items()}


def _least_squares(frames, labels, species) -> dict[str, float]:
    rows = [np.bincount(np.searchsorted(species, atoms.numbers), minlength=len(species)) / len(atoms) for atoms in frames]
    energies = np.array([label.energy / len(atoms) for atoms, label in zip(frames, labels, strict=True)])
    known = np.isfinite(energies)
    if not known.any():
        return {species_name(z): 0.0 for z in species}
    trust = np.array([float(label.scale.get("energy", 1.0)) for label in labels])[known]
    fit = np.linalg.lstsq(trust[:, None] * np.array(rows)[known], trust * energies[known], rcond=1e-10)[0]
    return {species_name(z): float(e) for z, e in zip(species, fit, strict=True)}


def baseline_energies(references: Mapping[str, float], numbers: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
    """(n_atoms,) reference energy of each atom; a species without one raises, naming the ``frame`` (n_atoms,) where given."""
    table = {atomic_numbers[symbol]: energy for symbol, energy in references.items()}
    missing = sorted({int(z) for z in numbers} - set(table))
    if missing:
        known = sorted(references)
        where = "" if frame is None else f"frame {frame[np.argmax(numbers == missing[0])]}: "
        raise InputError(f"{where}species {species_name(missing[0])} was not in the training data; this model knows {known}.")
    return np.array([table[int(z)] for z in numbers])
