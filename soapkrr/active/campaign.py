"""A screening whose reference is a queue: labels come when they come, and every one narrows the next question."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr.active.candidates import Candidate, check_source, stream
from soapkrr.active.decision import Belief, Standing, choose, standing
from soapkrr.active.duplicates import Alike, composition, duplicates
from soapkrr.active.evaluation import Evaluation, groups
from soapkrr.active.ranking import Predicted, belief, ordered
from soapkrr.active.result import COLUMNS, Screening
from soapkrr.active.settings import Settings
from soapkrr.active.surrogate import references_of, updatable
from soapkrr.display import counted
from soapkrr.errors import FAILURES, InputError, reason
from soapkrr.labels import read_labels
from soapkrr.labels.noise import of_more
from soapkrr.structures import as_frames

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential


#: Growth of the data, in parts, at which a model is fitted again; in between labels are conditioned on.
GROWTH = 1.5


class Campaign:
    """Which of many candidates to calculate next, and who is best by all that is known.

    The joint distribution of all candidates is conditioned on the energies that come in: of an exact process that is not calibrated this
    equals a fit with them; of a sparse one, what its representers cannot say counts as an error of the label. With ``training`` the model
    itself learns forces and stresses of the labels too, whenever the data have grown by a half: an exact process by `update`, where that
    gives what a fit would; others are fitted again. The value of a labelled candidate is its label. Labels may come in any order and
    number; the state is the labels, so that `add` of all of them to a new campaign restores it.

    Parameters
    ----------
    model : a fitted potential.  candidates : as in `screen`.
    reference : an ASE calculator, or a function from a structure to one with energy (and forces), for `run`; None: labels are added.
    training : the labelled structures of the model, when it is to learn.
    optimize : raise the evidence in these fits; not for some tens of energies alone, of which it may take everything for noise.
    settings : as in `screen`, without ``next``, ``fmax``, ``steps`` and ``cell``.

    Attributes
    ----------
    model : as it is now.  frames : distinct candidates that can be predicted.  labels : {candidate: value known}.
    failed : {candidate: reason}.  duplicates : {candidate: the one it is the same as}.

    Raises
    ------
    InputError : a setting is out of range, or no candidate can be predicted.
    """

    def __init__(
        self,
        model: Potential,
        candidates: str | Path | Iterable[Atoms],
        reference: Calculator | Callable[[Atoms], Atoms] | None = None,
        *,
        training: list[Atoms] | None = None,
        optimize: bool = False,
        **settings,
    ):
        refused = sorted({"next", "fmax", "steps", "cell"} & set(settings))
        if refused:
            raise InputError(f"`{refused[0]}` is of `screen`; a campaign takes candidates as they are, and `recommend(n)` says how many.")
        if not (reference is None or callable(reference) or isinstance(reference, Calculator)):
            raise InputError(f"`reference` must be an ASE calculator or a function, received {type(reference).__name__}.")
        self.settings, self.model, self.reference = Settings.of(settings), model, reference
        self.training, self.optimize = None if training is None else as_frames(training), optimize
        self._fitted = len(self.training or [])
        check_source(candidates)
        self._names: dict[int, str] = {}
        self.frames: dict[int, Atoms] = {}
        self.failed: dict[int, str] = {}
        self.labels: dict[int, float] = {}
        self.duplicates: dict[int, int] = {}
        self._labelled: dict[int, Atoms] = {}
        self._learnt: dict[int, Atoms] = {}
        self._read(candidates)
        self._predict()

    def _read(self, candidates) -> None:
        """Read all candidates, merge those that are the same, and list those that cannot be used."""
        evaluation, rows = Evaluation(self.model, self.settings), {}
        for group in groups(stream(candidates), evaluation.most):
            for atoms, values, data in evaluation(group):
                k = values["candidate"]
                self._names[k] = values["source"]
                if "failed" in values:
                    self.failed[k] = values["failed"]
                else:
                    self.frames[k], rows[k] = atoms, data["fingerprint"]
        if not self.frames:
            raise InputError(f"none of the {len(self.failed)} `candidates` can be predicted; the first: {next(iter(self.failed.values()))}")
        numbers = list(self.frames)
        alike = Alike(self.model.process_.descriptors, self.settings.merge, lambda j: self.frames[numbers[j]])
        kinds = [composition(self.frames[k].numbers) for k in numbers]
        same = duplicates(list(rows.values()), kinds, alike) if self.settings.merge else {}
        self.duplicates = {numbers[a]: numbers[b] for a, b in same.items()}
        self.frames = {k: atoms for k, atoms in self.frames.items() if k not in self.duplicates}

    def _predict(self) -> None:
        """Predict all candidates with the model as it is, as one joint posterior."""
        evaluation, rows = Evaluation(self.model, self.settings), []
        everyone = (Candidate(k, self._names[k], atoms) for k, atoms in self.frames.items())
        for group in groups(everyone, evaluation.most):
            rows += [values | {"energy": atoms.get_potential_energy()} for atoms, values, _ in evaluation(group) if "failed" not in values]
        self._numbers = [row["candidate"] for row in rows]
        self._rows = {row["candidate"]: row for row in rows}
        frames = [self.frames[k] for k in self._numbers]
        self._prior = self._belief = belief(self.model, frames, self.settings.quantity, Predicted.of(rows))

    def __repr__(self) -> str:
        return f"Campaign of {counted(len(self.frames), 'candidate')}, {len(self.labels):,} labelled, {len(self.failed):,} failed"

    @property
    def belief(self) -> Belief:
        """Joint posterior of the candidates' values given all labels."""
        return self._belief

    def recommend(self, n: int = 1) -> list[Atoms]:
        """The ``n`` candidates whose labels, together, narrow the decision most; `info["candidate"]` says which they are.

        Raises
        ------
        InputError : ``n`` is not 1 to the number of candidates without a label.
        """
        open_ = np.array([k not in self.labels and k not in self.failed for k in self._numbers])
        if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= open_.sum():
            raise InputError(f"`n` must be 1 to {open_.sum()}, the number of candidates without a label, received {n!r}.")
        picked = choose(self._belief, int(n), open_, self.settings.below, self.settings.best)
        return [self._copy(self._numbers[j]) for j in picked]

    def add(self, labelled: Atoms | list[Atoms]) -> Campaign:
        """Take labelled candidates in; returns the campaign.

        Parameters
        ----------
        labelled : structures with an energy, as the model reads it; which candidate one is, `info["candidate"]` says, else the structure.

        Raises
        ------
        InputError : a structure is no candidate, or has no energy; nothing is taken in then.
        """
        frames = as_frames(labelled)
        which = [self._which(atoms, s) for s, atoms in enumerate(frames)]
        labels = read_labels(frames, of_more(frames, self.model.fitted_parameters_.get("observations")), self.model.noise_)
        for k, label in zip(which, labels, strict=True):
            if not np.isfinite(label.energy):
                raise InputError(f"`labelled`: candidate {k}, {self._names[k]}, has no energy; `drop` one whose calculation failed.")
        for k, atoms, label in zip(which, frames, labels, strict=True):
            self.labels[k] = float(label.energy)
            if not any(_equal(atoms, other) for other in self.training or []):
                self._labelled[k] = atoms
            self.failed.pop(k, None)
        if self.training is not None and len(self.training) + len(self._labelled) >= GROWTH * self._fitted:
            self._learn([*self.training, *self._labelled.values()])
        rows = np.array([self._numbers.index(k) for k in self.labels])
        self._belief = self._prior.observed(rows, self._as_labels(rows))
        return self

    def _as_labels(self, which: np.ndarray) -> np.ndarray:
        """Labels in the unit of the rows that they observe: energies, or values where these are linear in them."""
        energies = np.array([self.labels[self._numbers[j]] for j in which])
        if not self.settings.quantity.linear:
            return energies
        frames = [self.frames[self._numbers[j]] for j in which]
        return np.array([(e - self.settings.quantity.offset(a)) / len(a) for e, a in zip(energies, frames, strict=True)])

    def _learn(self, frames: list[Atoms]) -> None:
        """Bring the model to all these structures, by an update where that gives what a fit would and no label has changed."""
        known = self._learnt.items()
        if not self.optimize and updatable(self.model) and all(self._labelled[k] is atoms for k, atoms in known):
            more = [atoms for k, atoms in self._labelled.items() if k not in self._learnt]
            self.model = copy.copy(self.model).update(more, references=references_of(self.model, frames))
        else:
            self._refit(frames)
        self._fitted, self._learnt = len(frames), dict(self._labelled)
        self._predict()

    def _refit(self, frames: list[Atoms]) -> None:
        """Fit the model to structures, from the noise and signal that it has; error bars are learnt again where they were."""
        known: dict = {"noise": dict(self.model.noise_)}
        known |= {"signal": self.model.signals_[0]} if len(self.model.signals_) == 1 else {}
        model: Any = type(self.model)(**{**self.model.fitted_parameters_, **known})
        model.fit(frames, optimize=self.optimize)
        self.model = model if self.model.calibration_ is None else model.calibrate(frames)

    def _which(self, atoms: Atoms, place: int) -> int:
        """The candidate that a labelled structure is."""
        stated = atoms.info.get("candidate")
        if isinstance(stated, Integral) and int(stated) in self.frames:
            if _equal(atoms, self.frames[int(stated)]):
                return int(stated)
            raise InputError(f"`labelled`: structure {place} states to be candidate {stated}, but its atoms are elsewhere.")
        for k, other in self.frames.items():
            if _equal(atoms, other):
                return k
        raise InputError(f"`labelled`: structure {place}, {atoms.get_chemical_formula()}, is none of the {len(self.frames)} candidates.")

    def drop(self, candidate: int, reason: str) -> None:
        """A candidate whose calculation failed: it is not recommended again."""
        if candidate not in self.frames:
            raise InputError(f"`candidate` {candidate!r} is none of the distinct candidates.")
        self.failed[candidate] = str(reason)

    def run(self, n: int, batch: int = 1) -> Campaign:
        """Calculate ``n`` candidates with the reference, ``batch`` at a time; one that fails is dropped, with the reason in `failed`.

        Raises
        ------
        InputError : there is no reference, or there are fewer candidates without a label.
        """
        if self.reference is None:
            raise InputError("`reference` was not given: `add` the labels of what `recommend` names.")
        while n > 0:
            picked, n = self.recommend(min(batch, n)), n - batch
            for atoms in picked:
                try:
                    self.add(self._calculated(atoms))
                except FAILURES as error:
                    self.drop(atoms.info["candidate"], reason(error))
        return self

    def _calculated(self, atoms: Atoms) -> Atoms:
        if not isinstance(self.reference, Calculator):
            found = self.reference(atoms)  # type: ignore[misc]
            if not isinstance(found, Atoms):
                raise InputError(f"`reference` must give an ase.Atoms, it gave a {type(found).__name__}.")
            found.info["candidate"] = atoms.info["candidate"]
            return found
        self.reference.reset()
        self.reference.calculate(atoms, ["energy", "forces"], ["positions", "numbers", "cell", "pbc"])
        results: Mapping = self.reference.results
        kept = {name: results[name] for name in ("energy", "forces", "stress") if name in results}
        atoms.calc = SinglePointCalculator(atoms, **kept)
        return atoms

    def standing(self) -> Standing:
        """Where candidates stand by all labels: probabilities, threshold; in the order of ``frames``."""
        return standing(self._belief, self.settings.below, self.settings.best)

    def ranking(self) -> Screening:
        """Every candidate with value and standard deviation given all labels, best first; labelled ones have the flag ``labelled``."""
        now, rows = self.standing(), []
        mean, std = self._belief.value, self._belief.std
        for j, k in enumerate(self._numbers):
            before = self._rows[k]
            shrink = std[j] / before["std"] if before["std"] > 0 else 1.0
            ends = {name: mean[j] + shrink * (before[name] - before["value"]) for name in ("lower", "upper") if name in before}
            flags = " ".join([*(["labelled"] if k in self.labels else []), *([before["flags"]] if before["flags"] != "-" else [])]) or "-"
            new = {"value": float(mean[j]), "std": float(std[j]), "probability": float(now.probability[j]), "flags": flags}
            rows.append(self._base(k) | {"novelty": before.get("novelty")} | new | {name: float(x) for name, x in ends.items()})
        order = ordered(Predicted(mean, std, std, mean - std, mean), now.probability, self.settings.rank)
        ranked = [rows[j] | {"rank": r} for r, j in enumerate(order, 1)]
        merged = [self._base(k) | {"duplicate_of": j} for k, j in self.duplicates.items()]
        broken = [self._base(k) | {"failed": why} for k, why in self.failed.items() if k not in self._rows]
        told = f"among the best {self.settings.best}" if self.settings.below is None else f"below {self.settings.below:g}"
        return Screening([*ranked, *merged, *broken], self.settings.quantity.name, told, _structures=lambda ks: [self._copy(k) for k in ks])

    def _base(self, k: int) -> dict:
        atoms = self.frames.get(k)
        formula = {} if atoms is None else {"formula": atoms.get_chemical_formula(), "n_atoms": len(atoms)}
        return dict.fromkeys(COLUMNS) | {"candidate": k, "source": self._names[k]} | formula

    def _copy(self, k: int) -> Atoms:
        atoms = self.frames[k].copy()
        atoms.info["candidate"] = k
        return atoms


def _equal(a: Atoms, b: Atoms) -> bool:
    """The same atoms at the same places, to what is written in files."""
    return (
        len(a) == len(b)
        and bool((a.numbers == b.numbers).all() and (a.pbc == b.pbc).all())
        and np.allclose(a.positions, b.positions, atol=1e-6, rtol=0)
        and np.allclose(a.cell.array, b.cell.array, atol=1e-6, rtol=0)
    )
