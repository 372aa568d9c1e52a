"""Labels read off structures and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError, LabelError
from soapkrr.labels.balance import balanced
from soapkrr.labels.families import advice, label_names, warn_of_unread
from soapkrr.labels.labels import KINDS, Labels
from soapkrr.labels.lookup import calculated, lookup, numeric, voigt
from soapkrr.labels.noise import check_names, scaled
from soapkrr.labels.observations import Observations

logger = logging.getLogger(__name__)

#: Energy and free energy farther apart are not the same number rounded, eV.
ROUNDING = 1e-5


def _energy(value, index: int) -> float:
    if value is None:
        return np.nan
    energy = numeric(value, "energy", index)
    if energy.size != 1:
        raise LabelError(f"frame {index}: `energy` has shape {energy.shape}, expected one number, the total energy.")
    if not np.isfinite(energy).all():
        raise LabelError(f"frame {index}: energy {value} is not finite; correct or remove it.")
    return energy.item()


def _forces(atoms: Atoms, stored, ignored: np.ndarray | None, index: int) -> np.ndarray | None:
    if stored is None:
        return None
    forces = numeric(stored, "forces", index)
    if forces.shape != (len(atoms), 3):
        raise LabelError(f"frame {index}: `forces` has shape {forces.shape}, expected {(len(atoms), 3)}.")
    known = np.isfinite(forces) if ignored is None else np.isfinite(forces) | ignored
    bad = np.flatnonzero(~known.all(axis=1))
    if len(bad):
        raise LabelError(f"frame {index}, atom {bad[0]}: force {forces[bad[0]]} is not finite; correct, remove or mask the forces.")
    return forces if ignored is None else np.where(ignored, np.nan, forces)


def force_mask(atoms: Atoms, name: str | None, index: int) -> np.ndarray | None:
    """(n_atoms, 3) True where forces are ignored; None where the structure has no mask."""
    mask = None if name is None else atoms.arrays.get(name, atoms.info.get(name))
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.shape not in ((len(atoms),), (len(atoms), 3)):
        raise LabelError(f"frame {index}: the mask `{name}` has shape {mask.shape}, expected {(len(atoms),)} or {(len(atoms), 3)}.")
    if mask.dtype != bool and not (np.issubdtype(mask.dtype, np.integer) and np.isin(mask, (0, 1)).all()):
        raise LabelError(f"frame {index}: the mask `{name}` must be boolean (True: ignore the force), received {mask.dtype} values.")
    return np.broadcast_to(mask.astype(bool).reshape(len(atoms), -1), (len(atoms), 3))


def _stress(atoms: Atoms, stored, index: int) -> np.ndarray | None:
    if stored is None:
        return None
    stress = voigt(stored, "stress", index)
    if not np.isfinite(stress).all():
        raise LabelError(f"frame {index}: stress {stress} is not finite; correct or remove it.")
    if not atoms.pbc.all():
        raise LabelError(f"frame {index} has a stress but is not periodic in three directions: set `pbc` or remove the stress.")
    return stress


def _from_virial(atoms: Atoms, name: str, stress, index: int):
    """Stress −virial/V; the structure's own where it has no virial."""
    virial = lookup(atoms, name, index, per_atom=False)
    if virial is None:
        return stress
    if not atoms.pbc.all():
        raise LabelError(f"frame {index} has a `{name}` but is not periodic in three directions: set `pbc` or remove it.")
    converted = -voigt(virial, name, index) / atoms.get_volume()
    if stress is not None and not np.allclose(voigt(stress, "stress", index), converted, rtol=1e-4, atol=1e-6):
        raise LabelError(
            f"frame {index} has a stress {stress} and a virial {virial} that disagree: stress = −virial/V, V = {atoms.get_volume():g} Å³, "
            "is expected. Remove one, or check the sign."
        )
    return converted


def read_labels(frames: list[Atoms], observations: Observations | None = None, noise: Mapping[str, float] | None = None) -> list[Labels]:
    """Labels of every frame; raises when none has any.

    With ``noise``, a model's level of each kind of observation, the labels carry the factors of their rows for a fit, and structures
    of weight zero are empty.
    """
    if not (observations is None or isinstance(observations, Observations)):
        raise InputError(f"`observations` must be an `Observations` or None, received {type(observations).__name__}.")
    labels = [labels_of(atoms, index, observations) for index, atoms in enumerate(frames)]
    if noise is not None:
        _log_free_energies(frames, labels)
    if observations is not None and noise is not None:
        check_names(frames, observations)
        warn_of_unread(frames, observations)
        labels = scaled(frames, labels, observations, noise)
        labels = balanced(frames, labels, observations.config_type) if observations.balance else labels
    if all(label.empty for label in labels):
        raise LabelError(_nothing(frames, observations))
    return labels


def _nothing(frames, observations: Observations | None) -> str:
    message = f"none of the {len(frames)} structures has an energy, forces or a stress to fit. "
    there = label_names(frames)
    carried = f" The structures carry {', '.join(there)}; {advice(there)} reads them." if there else ""
    if observations is None:
        return (
            f"{message}soapkrr reads the results of the structures' calculator (`atoms.calc.results`); extended-XYZ files need the keys "
            f"energy, forces and stress, or an `Observations` that names theirs.{carried}"
        )
    names = {kind: getattr(observations, kind) for kind in observations.use}
    virial = "" if observations.virial is None else f", virial {observations.virial!r}"
    return f"{message}Names looked for: {names}{virial}.{carried}"


def _free_energy(atoms: Atoms, stored: Mapping, index: int):
    """The energy that forces and stress are derivatives of: the calculator's free energy where it differs from its energy.

    ASE's convention, which VASP's readers follow: `energy` is extrapolated to zero smearing, `free_energy` is consistent with the forces.
    """
    energy, free = stored.get("energy"), calculated(atoms, "free_energy", index)
    if energy is None or free is None or (stored.get("forces") is None and stored.get("stress") is None):
        return energy
    apart = abs(_energy(free, index) - _energy(energy, index)) > ROUNDING
    return free if apart and energy is calculated(atoms, "energy", index) else energy


def _log_free_energies(frames: list[Atoms], labels: list[Labels]) -> None:
    """Say how many structures are fitted to a free energy."""
    results = [getattr(atoms.calc, "results", {}) for atoms in frames]
    n = sum(label.energy == r.get("free_energy") != r.get("energy", label.energy) for r, label in zip(results, labels, strict=True))
    if n:
        logger.info("%d structures are fitted to `free_energy`, which belongs to their forces, in place of `energy`", n)


def labels_of(atoms: Atoms, index: int, observations: Observations | None = None) -> Labels:
    """Labels of frame ``index``, checked; nothing is computed.

    Without ``observations`` they are the results of the structure's single-point calculator. Where forces or a stress are read and the
    calculator has both an `energy` and another `free_energy`, the free energy is taken, whose derivatives they are.

    Raises
    ------
    LabelError : wrong shape, NaN or infinite values, or a stress without a three-dimensional cell.
    """
    if observations is None:
        stored = {kind: calculated(atoms, kind, index) for kind in KINDS}
    else:
        stored = {kind: lookup(atoms, getattr(observations, kind), index, kind == "forces") for kind in observations.use}
        if observations.virial is not None and "stress" in stored:
            stored["stress"] = _from_virial(atoms, observations.virial, stored["stress"], index)
    ignored = None if observations is None else force_mask(atoms, observations.mask, index)
    energy, stress = _energy(_free_energy(atoms, stored, index), index), _stress(atoms, stored.get("stress"), index)
    return Labels(energy, _forces(atoms, stored.get("forces"), ignored, index), stress)
