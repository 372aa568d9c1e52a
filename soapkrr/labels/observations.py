"""Which labels a fit uses, under which names they are stored, and how far each is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from soapkrr.errors import InputError, require_positive
from soapkrr.labels.labels import KINDS
from soapkrr.specification import ByValue, Specification

#: Quantities whose standard deviation a structure may state: kind of observation each belongs to.
NOISE_OF = {"energy": "energy", "total_energy": "energy", "forces": "forces", "stress": "stress", "virial": "stress"}

DEFAULT_NOISE_KEYS = {"energy": "energy_noise", "forces": "forces_noise", "stress": "stress_noise"}

GAP_NOISE_KEYS = {
    "total_energy": "energy_sigma",
    "virial": "virial_sigma",
    "forces": ("force_component_sigma", "force_atom_sigma", "force_sigma"),
}

#: Names that structures may lack without a word; None stands for a name not given.
CUSTOMARY = {None, "config_type", "force_mask", "weight", "energy_sigma", "virial_sigma"}
CUSTOMARY |= {*DEFAULT_NOISE_KEYS.values(), *GAP_NOISE_KEYS["forces"]}


@dataclass(frozen=True, eq=False)
class Observations(ByValue, Specification):
    """Names of labels in `atoms.info` and `atoms.arrays`, and noise by configuration type, structure, atom and component.

    A name of ASE's own (``"energy"``, ``"forces"``, ``"stress"``) is looked up in the results of the structure's calculator first, then in
    `info` (energy, stress, virial) or `arrays` (forces). What a structure lacks is missing. A fit without an `Observations` reads
    the calculator's results and nothing else.

    The standard deviation σ of a row is the most specific one there is: of the atom or component, of the structure, of its configuration
    type, of the model (`noise`). A structure of weight w has σ/√w. The model's level stays the tunable one: rows are multiplied by
    noise/σ, so that all the noise of a kind grows and shrinks together when its level is optimised.

    Parameters
    ----------
    energy, forces, stress : names of the labels: eV, eV/Å, eV/Å³ ((6,) in Voigt order, (3, 3) or (9,)). A calculator's ``"energy"``
        beside forces or a stress is its ``free_energy`` where it has both and they differ (VASP: the energy extrapolated to zero smearing
        is not what the forces derive from); to fit the extrapolated one, store it under another name.
    virial : name of a virial in eV ((3, 3), (9,) or (6,)), read as stress = −virial/V, gap_fit's convention. A structure that has a
        stress besides must have the same.
    use : kinds of observation to fit.
    config_type : name of the configuration type, in `info`.
    config_noise : {configuration type: {kind: σ}} with kinds and units of a model's ``noise``; energies per atom.
    noise_keys : {quantity: name or names, first found wins}. Quantities: energy (eV per atom), total_energy (eV), stress (eV/Å³) and
        virial (eV) are read from `info`; forces (eV/Å) from `arrays`, (n_atoms,) or (n_atoms, 3), or from `info`.
    mask : name of a boolean array (n_atoms,) or (n_atoms, 3): forces where it is True are ignored, and may be NaN.
    weight : name of a weight in `info`; 0 leaves out the labels of the structure.
    balance : whether rare configuration types, and in forces rare species, count as much as common ones (`labels.balance`): their weights
        are the larger the fewer there are among the structures of a fit, up to tenfold.

    Raises
    ------
    InputError : an unknown kind or quantity, a σ that is not positive, two names for the stress. Reading labels raises `LabelError` for
        a configuration type or a name other than the default that no structure has, and for masks and σ of wrong shape.

    Examples
    --------
    >>> Observations(energy="dft_energy", forces="dft_forces", use=("energy", "forces"), config_noise={"liquid": {"forces": 0.2}}).use
    ('energy', 'forces')
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    virial: str | None = None
    use: Sequence[str] = KINDS
    config_type: str = "config_type"
    config_noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    noise_keys: Mapping[str, str | Sequence[str]] = field(default_factory=lambda: dict(DEFAULT_NOISE_KEYS))
    mask: str | None = "force_mask"
    weight: str | None = "weight"
    balance: bool = False

    def __post_init__(self):
        use = (self.use,) if isinstance(self.use, str) else tuple(self.use)
        if not use or not set(use) <= set(KINDS):
            raise InputError(f"`use` must name some of {KINDS}, received {self.use!r}.")
        if self.virial is not None and self.stress != "stress":
            raise InputError(f"`stress`={self.stress!r} and `virial`={self.virial!r} both name the stress; give one of them.")
        if not isinstance(self.balance, (bool, np.bool_)):
            raise InputError(f"`balance` must be True or False, received {self.balance!r}.")
        object.__setattr__(self, "use", use)
        object.__setattr__(self, "config_noise", _config_noise(self.config_noise))
        object.__setattr__(self, "noise_keys", _noise_keys(self.noise_keys))

    @classmethod
    def gap(cls, **changes) -> Observations:
        """The names that gap_fit reads: force, virial, force_mask, config_type; energy_sigma and virial_sigma in eV of the whole
        structure; force_component_sigma, force_atom_sigma, force_sigma. Files without virials need ``use=("energy", "forces")``.
        """
        return cls(**{"forces": "force", "virial": "virial", "noise_keys": GAP_NOISE_KEYS, "weight": None, **changes})

    def required(self) -> dict[str, tuple[str, ...]]:
        """{parameter: names} of which one must occur in the data: chosen by the user, neither a default nor gap_fit's custom."""
        labels = {"energy": self.energy, "forces": self.forces, "stress": self.virial or self.stress}
        chosen = {kind: (labels[kind],) for kind in self.use if labels[kind] != kind}
        names = {"config_type": (self.config_type,), "mask": (self.mask,), "weight": (self.weight,)}
        names |= {f"noise_keys[{quantity!r}]": keys for quantity, keys in self.noise_keys.items() if NOISE_OF[quantity] in self.use}
        return chosen | {parameter: keys for parameter, keys in names.items() if not set(keys) <= CUSTOMARY}


def weighted(observations: Observations | None, weights: str | None) -> Observations | None:
    """The observations with importance weights: ``"balanced"``, or None for those that they have."""
    if weights is None:
        return observations
    if weights != "balanced":
        raise InputError(f"`weights` must be 'balanced' or None, received {weights!r}.")
    return replace(observations or Observations(), balance=True)


def _config_noise(given) -> dict[str, dict[str, float]]:
    if not isinstance(given, Mapping):
        raise InputError(f"`config_noise` must be a mapping {{configuration type: {{kind: σ}}}}, received {given!r}.")
    for name, levels in given.items():
        if not isinstance(levels, Mapping) or not set(levels) <= set(KINDS):
            raise InputError(f"`config_noise`[{name!r}] must be a mapping with some of the keys {KINDS}, received {levels!r}.")
        require_positive(**{f"config_noise[{name!r}][{kind!r}]": level for kind, level in levels.items()})
    return {str(name): dict(levels) for name, levels in given.items()}


def _noise_keys(given) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping) or not set(given) <= set(NOISE_OF):
        raise InputError(f"`noise_keys` must be a mapping {{quantity: name}} with quantities of {tuple(NOISE_OF)}, received {given!r}.")
    keys = {quantity: (names,) if isinstance(names, str) else tuple(names) for quantity, names in given.items()}
    for kind in KINDS:
        several = [quantity for quantity in keys if NOISE_OF[quantity] == kind]
        if len(several) > 1:
            raise InputError(f"`noise_keys` gives the noise of the {kind} twice: {several}.")
    return keys
