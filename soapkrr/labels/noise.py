"""Factors of design rows that follow from the noise of configuration types, structures, atoms and components, and from weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.errors import LabelError
from soapkrr.labels.labels import Labels
from soapkrr.labels.lookup import config_type, numeric, shown, voigt
from soapkrr.labels.observations import NOISE_OF, Observations


def scaled(frames: list[Atoms], labels: list[Labels], observations: Observations, noise: Mapping[str, float]) -> list[Labels]:
    """Labels with the factor noise·√weight/σ of each row; those of weight zero become empty.

    Parameters
    ----------
    noise : {kind: σ of the model}: eV per atom, eV/Å, eV/Å³.
    """
    check_config_types(frames, observations)
    return [_scaled(atoms, label, observations, noise, index) for index, (atoms, label) in enumerate(zip(frames, labels, strict=True))]


def _scaled(atoms: Atoms, label: Labels, observations: Observations, noise: Mapping[str, float], index: int) -> Labels:
    weight = _weight(atoms, observations.weight, index)
    if weight == 0:
        return replace(label, energy=np.nan, forces=None, stress=None)
    config = observations.config_noise.get(config_type(atoms, observations.config_type), {})
    sigma = {kind: config[kind] for kind in config if label.has(kind)}
    for quantity, names in observations.noise_keys.items():
        kind = NOISE_OF[quantity]
        own = _own_sigma(atoms, quantity, names, label, index) if label.has(kind) else None
        if own is not None:
            sigma[kind] = own
    kinds = [kind for kind in observations.use if label.has(kind)]
    factors = {kind: noise[kind] / np.asarray(sigma.get(kind, noise[kind])) * np.sqrt(weight) for kind in kinds}
    return replace(label, scale={kind: np.broadcast_to(f, np.shape(getattr(label, kind))) for kind, f in factors.items()})


def _weight(atoms: Atoms, name: str | None, index: int) -> float:
    weight = numeric(atoms.info.get(name, 1.0), str(name), index)
    if weight.size != 1 or not np.isfinite(weight).all() or weight < 0:
        raise LabelError(f"frame {index}: the weight `{name}` is {shown(atoms.info[name])}, expected a finite number ≥ 0.")
    return weight.item()


def _own_sigma(atoms: Atoms, quantity: str, names: tuple[str, ...], label: Labels, index: int) -> np.ndarray | None:
    """σ that the structure itself states, in the unit of the kind's noise; None if it states none."""
    where = (atoms.arrays, atoms.info) if quantity == "forces" else (atoms.info,)
    found = [(name, numeric(place[name], name, index)) for name in names for place in where if name in place]
    if not found:
        return None
    name, sigma = found[0]
    sigma = _shaped(atoms, quantity, name, sigma, index)
    used = np.isfinite(getattr(label, NOISE_OF[quantity]))
    if not np.all(np.where(used, np.isfinite(sigma) & (sigma > 0), True)):
        raise LabelError(f"frame {index}: the standard deviations `{name}` must be positive and finite; mask forces to ignore.")
    # Rows that are not used get 1: their σ may be anything.
    return _unit(atoms, quantity) * np.where(used, sigma, 1.0)


def _shaped(atoms: Atoms, quantity: str, name: str, sigma: np.ndarray, index: int) -> np.ndarray:
    """σ in a shape that fits the label: (), (6,), or (n_atoms, 3)."""
    if sigma.size == 1:
        return sigma.reshape(())
    if quantity in ("stress", "virial"):
        return voigt(sigma, name, index)
    n = len(atoms)
    if quantity == "forces" and sigma.shape in ((n,), (n, 3)):
        return np.broadcast_to(sigma.reshape(n, -1), (n, 3))
    expected = f"one number, {(n,)} or {(n, 3)}" if quantity == "forces" else "one number"
    raise LabelError(f"frame {index}: the standard deviation `{name}` has shape {sigma.shape}, expected {expected}.")


def _unit(atoms: Atoms, quantity: str) -> float:
    """Factor from the unit of the quantity to that of its kind's noise."""
    if quantity == "total_energy":
        return 1 / np.sqrt(len(atoms))
    return 1 / atoms.get_volume() if quantity == "virial" else 1.0


def check_config_types(frames: list[Atoms], observations: Observations) -> None:
    """Every configuration type of `config_noise` must occur: one that does not is a slip of the pen."""
    there = {config_type(atoms, observations.config_type) for atoms in frames}
    unknown = sorted(set(observations.config_noise) - there)
    if unknown:
        raise LabelError(
            f"`config_noise` names {unknown}, but no structure has such a `{observations.config_type}`; there are {sorted(there)}."
        )


def of_more(frames: list[Atoms], observations: Observations | None) -> Observations | None:
    """The observations of a fit for structures that come after it: noise of types that these do not have is no slip of the pen."""
    if observations is None or not observations.config_noise:
        return observations
    there = {config_type(atoms, observations.config_type) for atoms in frames}
    return replace(observations, config_noise={name: levels for name, levels in observations.config_noise.items() if name in there})


def check_names(frames: list[Atoms], observations: Observations) -> None:
    """Every name chosen by the user must occur in some structure."""
    there = {name for atoms in frames for name in (*atoms.info, *atoms.arrays, *getattr(atoms.calc, "results", {}))}
    for parameter, names in observations.required().items():
        if not there & set(names):
            wanted, held = " or ".join(map(repr, names)), sorted(there - {"numbers", "positions"})
            raise LabelError(f"`observations`: no structure has the {parameter} {wanted}; the structures hold {held}.")


def log_scales(labels: list[Labels]) -> dict[str, float]:
    """{kind: Σ log(noise/σ) over its rows}: what unequal σ add to the log marginal likelihood, whatever the noise levels."""
    totals: dict[str, float] = {}
    for label in labels:
        for kind, scale in label.scale.items():
            used = np.isfinite(getattr(label, kind))
            totals[kind] = totals.get(kind, 0.0) + float(np.log(scale[used]).sum())
    return totals
