"""An exact process of few structures that grows with every reference calculation, and its calculator for a search."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr.active.widening import widened
from soapkrr.baselines import Baseline, CalculatorBaseline
from soapkrr.descriptors.pair import Pair
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.kernels import DotProduct, Linear
from soapkrr.labels import Observations, read_labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.terms import Term
from soapkrr.structures import Batch

#: Noise of a structure whose forces are small, eV/atom, eV/Å, eV/Å³, and of large forces in units of the largest: what a few hundred
#: features cannot say of a structure far from rest must not spoil what they say of one near it.
NOISE, OF_FORCE = {"energy": 3e-4, "forces": 1e-3, "stress": 2e-5}, 0.01


@dataclass(frozen=True)
class Reference:
    """One reference calculation.

    Attributes
    ----------
    atoms : the structure.  energy : eV.  forces : (n_atoms, 3) eV/Å, without constraints.  stress : (6,) eV/Å³, or None.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None

    @property
    def finite(self) -> bool:
        """Whether all its numbers are."""
        parts = [self.energy, self.forces, *([] if self.stress is None else [self.stress])]
        return all(bool(np.isfinite(part).all()) for part in parts)

    def to_dict(self) -> dict:
        """For a file."""
        atoms = {name: getattr(self.atoms, name) for name in ("numbers", "positions", "pbc")} | {"cell": self.atoms.cell.array}
        return {"atoms": atoms, "energy": self.energy, "forces": self.forces, "stress": self.stress}

    @classmethod
    def from_dict(cls, entry: Mapping) -> Reference:
        """From `to_dict`."""
        stress = None if entry["stress"] is None else np.asarray(entry["stress"], dtype=float)
        return cls(Atoms(**entry["atoms"]), float(entry["energy"]), np.asarray(entry["forces"], dtype=float), stress)

    def labelled(self) -> Atoms:
        """The structure with its labels, and how far they are trusted."""
        atoms = Atoms(self.atoms.numbers, self.atoms.positions, cell=self.atoms.cell, pbc=self.atoms.pbc)
        less = max(1.0, OF_FORCE * np.abs(self.forces).max(initial=0.0) / NOISE["forces"])
        atoms.info = {f"{kind}_noise": less * level for kind, level in NOISE.items()}
        results = {"energy": self.energy, "forces": self.forces} | ({} if self.stress is None else {"stress": self.stress})
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def preset(species: list[str], r_cut: float = 5.0, zeta: int = 3, pair: float = 1.0) -> list[Term]:
    """Terms for structures of these species, of which nothing is known yet: a pair potential of signal ``pair``, eV, and SOAP."""
    soap = SOAP(species, r_cut=r_cut, n_max=6, l_max=6, sigma=0.4)
    return [Term(Pair(species, r_cut=5.0), Linear(), signal=pair), Term(soap, DotProduct(zeta=zeta), signal=1.0)]


def preset_near_rest(species: list[str]) -> list[Term]:
    """Those for a way to the nearest rest: less is left to pairs, and what is far counts less, so that fewer calculations say more."""
    return preset(species, r_cut=4.0, zeta=2, pair=0.3)


class Surrogate:
    """What is known of some structures of the same species; it learns from one `Reference` after the other.

    The mean is the highest energy seen of a composition, so that what is unknown does not attract.

    Parameters
    ----------
    species : chemical symbols.  prior : a prior mean, or None.
    model : that of another surrogate, which goes on to grow in a copy; where it does not know a species, it is made again for all of them
        from the labels that it has learnt from.
    terms : what makes the terms of a new model from species.
    """

    def __init__(
        self,
        species: list[str],
        prior: Baseline | None = None,
        model: GaussianProcess | None = None,
        terms: Callable[[list[str]], list[Term]] = preset,
    ):
        self.species, self.prior, self.model, self.terms = sorted(set(species)), prior, copy.copy(model), terms
        self.highest: dict[tuple, float] = {} if model is None else dict(highest_energies(model))
        if model is not None:
            self.prior = None  # is in the model
            self.species = sorted(set(species) | set(model.reference_energies_))
            if self.species != sorted(model.reference_energies_):
                self.model = widened(model, self.species, self._references())

    def knows(self, species: Iterable[str]) -> bool:
        """Whether it has learnt from a structure with each of these species."""
        return set(species) <= {symbol for key in self.highest for symbol, _ in key}

    @classmethod
    def of(cls, species: list[str], prior=None, model=None, terms=preset) -> Surrogate:
        """With a model that goes on to grow, or one that does not as prior mean in place of ``prior``, which is as in `as_prior`."""
        own = model if grows(model) else None
        return cls(species, as_prior(prior if own is not None or model is None else model), own, terms)

    def __len__(self) -> int:
        return 0 if self.model is None else len(self.model.process_.structures.frames)

    def learn(self, reference: Reference) -> None:
        """Add a calculation."""
        atoms = reference.labelled()
        energy = reference.energy - self._prior_energy(atoms)
        key = composition(atoms)
        self.highest[key] = max(energy, self.highest.get(key, -np.inf))
        references = self._references()
        if self.model is None:
            baseline = references if self.prior is None else [references, self.prior]
            options = {"noise": NOISE, "observations": Observations(), "solver": "cholesky", "baseline": baseline}
            self.model = GaussianProcess(self.terms(self.species), **options).learn([atoms], False, False, check=False)
        else:
            self.model.update(atoms, references=references)

    def _prior_energy(self, atoms: Atoms) -> float:
        means = [self.prior] if self.model is None else self.model.prior_means_
        batch = Batch.from_atoms([atoms])
        return float(sum(mean.evaluate(batch).energies.sum() for mean in means if mean is not None))

    def _references(self) -> dict[str, float]:
        """Energies of atoms that give the highest energy of each composition, as far as they can."""
        rows = np.array([[dict(key).get(symbol, 0) for symbol in self.species] for key in self.highest], dtype=float)
        energies = np.array(list(self.highest.values()))
        return dict(zip(self.species, map(float, np.linalg.lstsq(rows, energies, rcond=1e-10)[0]), strict=True))


def composition(atoms: Atoms) -> tuple:
    """((symbol, number), …) in alphabetical order."""
    return tuple(sorted(atoms.symbols.formula.count().items()))


def highest_energies(model: GaussianProcess) -> Mapping[tuple, float]:
    """{composition: highest energy less prior means, eV} of what a model was fitted to."""
    process, found = model.process_, {}
    layout = process.structures.layout
    place = dict(zip(process.picked.tolist(), process.targets, strict=True))
    for s, atoms in enumerate(process.structures.frames):
        at = int(layout.energy[s])
        if at in place:
            energy = place[at] + sum(model.reference_energies_[symbol] for symbol in atoms.symbols)
            found[composition(atoms)] = max(energy, found.get(composition(atoms), -np.inf))
    return found


def grows(model) -> bool:
    """Whether a model is that of a surrogate, or one like it."""
    return isinstance(model, GaussianProcess) and isinstance(getattr(model, "process_", None), ExactProcess)


def updatable(model) -> bool:
    """Whether an update of a model is what a fit with its noise and signals would give: no error bars and no scalings are learnt."""
    return (
        grows(model)
        and model.process_.targets is not None
        and model.calibration_ is None
        and not any(term.descriptor.learns for term in model._as_fitted()._terms())
    )


def references_of(model: GaussianProcess, frames: list[Atoms]) -> Mapping[str, float]:
    """The reference energies that a fit of the model to these structures would have."""
    fitted = model._as_fitted()
    labels = read_labels(frames, fitted.observations, fitted._noise())
    return TrainingData.of(frames, labels, fitted.baseline, model.threads).references


def as_prior(prior) -> Baseline | None:
    """A prior mean from one, a calculator or a fitted potential."""
    if prior is None or isinstance(prior, Baseline):
        return prior
    if isinstance(prior, Potential):
        return CalculatorBaseline(prior.calculator(uncertainty=False))
    if isinstance(prior, BaseCalculator):
        return CalculatorBaseline(prior)
    raise InputError(f"`prior` must be an ASE calculator, a prior mean or a fitted potential, received {type(prior).__name__}.")


class Recorded(Calculator):
    """A calculation that was made, for a structure that stands where it was made."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, reference: Reference):
        super().__init__()
        self.reference = reference

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Called by ASE."""
        super().calculate(atoms, properties, system_changes)
        known = self.reference
        self.results = {"energy": known.energy, "free_energy": known.energy, "forces": known.forces}
        self.results |= {} if known.stress is None else {"stress": known.stress}


class Tilted(Calculator):
    """A surrogate with a constant added to all forces (and virials) so that they are those of the reference at its best structure.

    A process cannot follow every reference to 0.01 eV/Å; near rest, where that decides, its curvature is right and its gradient is not.
    First-order consistency makes each step one of Newton's method with the surrogate's Hessian (Alexandrov et al. 1998,
    doi 10.1007/BF01197433).
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, model: GaussianProcess, best: Reference | None):
        super().__init__()
        self.model, self.best = model, best
        self.by_energy, self.by_forces, self.by_virial = 0.0, 0.0, 0.0
        if best is not None:
            p = model.predict(best.atoms)
            self.by_energy, self.by_forces = best.energy - float(p.energy[0]), best.forces - p.forces[0]
            if best.stress is not None:
                self.by_virial = (best.stress - p.stress[0]) * best.atoms.get_volume()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Called by ASE."""
        super().calculate(atoms, properties, system_changes)
        p = self.model.predict(self.atoms)
        way = 0.0 if self.best is None else self.atoms.positions - self.best.atoms.positions
        energy = float(p.energy[0]) + self.by_energy - float(np.sum(self.by_forces * way))
        self.results = {"energy": energy, "forces": p.forces[0] + self.by_forces}
        self.results["free_energy"] = self.results["energy"]
        if np.isfinite(p.stress[0]).all():
            self.results["stress"] = p.stress[0] + self.by_virial / self.atoms.get_volume()
