"""Rows of candidates: value, standard deviation, interval, novelty and flags, predicted group by group."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from soapkrr.active.candidates import Candidate
from soapkrr.active.duplicates import fingerprint
from soapkrr.active.ledger import plain
from soapkrr.active.settings import Settings
from soapkrr.errors import FAILURES, InputError, reason
from soapkrr.regression.data import check_structures
from soapkrr.structures import Batch, species_name
from soapkrr.threads import serial_blas

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential

#: Atoms predicted at once.
GROUP = 1024

#: Text of a reason that is kept.
LONGEST = 300


def groups(candidates: Iterable[Candidate], most: int) -> Iterator[list[Candidate]]:
    """Consecutive candidates with at most ``most`` atoms (or one): the same groups whenever the source is read."""
    group, atoms = [], 0
    for candidate in candidates:
        n = 1 if candidate.atoms is None else len(candidate.atoms)
        if group and atoms + n > most:
            yield group
            group, atoms = [], 0
        group.append(candidate)
        atoms += n
    if group:
        yield group


class Evaluation:
    """Rows of candidates by a model, as a `Ledger` takes them."""

    def __init__(self, model: Potential, settings: Settings):
        self.model, self.settings = model, settings
        self.most = 1 if settings.fmax is not None else GROUP

    def __call__(self, group: list[Candidate]) -> list[tuple[Atoms, dict, dict]]:
        """(structure with results, values, data) of each candidate of a group; one that fails has the reason in its values."""
        found = {candidate.index: self._usable(candidate) for candidate in group}
        usable = [candidate for candidate in group if isinstance(found[candidate.index], Atoms)]
        rows = dict(zip((c.index for c in usable), self._rows([found[c.index] for c in usable]), strict=True))  # type: ignore[misc]
        out = []
        for candidate in group:
            row = rows.get(candidate.index, found[candidate.index])
            shared = {"candidate": candidate.index, "source": candidate.name, "digest": candidate.digest}
            if isinstance(row, str):
                out.append((_bare(candidate.atoms), shared | {"failed": row[:LONGEST]}, {}))
            else:
                atoms, values, data = row
                out.append((atoms, shared | values, data))
        return out

    def _usable(self, candidate: Candidate) -> Atoms | str:
        """The structure, relaxed where that is asked for, or why it cannot be used."""
        if candidate.atoms is None:
            return candidate.reason
        try:
            self._check(candidate.atoms)
            atoms = _bare(candidate.atoms)
            return atoms if self.settings.fmax is None else self._relaxed(atoms)
        except FAILURES as error:
            return reason(error)

    def _check(self, atoms: Atoms) -> None:
        check_structures([atoms], self.model.process_.descriptors)
        known = self.model.reference_energies_
        strange = sorted({symbol for symbol in map(species_name, atoms.numbers) if symbol not in known})
        if strange:
            raise InputError(f"species {', '.join(strange)} not in the training data, which has {sorted(known)}")
        Batch.from_atoms([atoms]).pairs(max(descriptor.r_cut for descriptor in self.model.process_.descriptors))
        if self.settings.cell and not atoms.pbc.all():
            raise InputError("not periodic in three directions, its cell cannot be relaxed")

    def _relaxed(self, atoms: Atoms) -> Atoms:
        """Relaxed with the model; how that ended is in `info`."""
        from ase.filters import FrechetCellFilter
        from ase.optimize import BFGS

        atoms.calc = self.model.calculator(uncertainty=False)
        target = FrechetCellFilter(atoms) if self.settings.cell else atoms
        with serial_blas(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "logm result may be inaccurate")  # by 1e-12
            optimizer = BFGS(target, logfile=None)  # type: ignore[arg-type]
            converged = bool(optimizer.run(fmax=self.settings.fmax, steps=self.settings.steps))  # type: ignore[arg-type]
        atoms.calc = None
        atoms.info.update(relaxed=converged, relax_steps=int(optimizer.nsteps))
        return atoms

    def _rows(self, frames: list[Atoms]) -> list:
        """Row of each structure, or the reason where it cannot be predicted; one by one where the group cannot be predicted at once."""
        if not frames:
            return []
        try:
            p = self.model.predict(frames, uncertainty="energy")
            values = self._values(frames, p)
            return [self._row(atoms, p[s], values[s]) for s, atoms in enumerate(frames)]
        except FAILURES as error:
            if len(frames) == 1:
                return [reason(error)]
        return [self._rows([atoms])[0] for atoms in frames]

    def _values(self, frames: list[Atoms], p) -> list[dict]:
        """Value, standard deviation and interval of each structure."""
        quantity, coverage = self.settings.quantity, self.settings.coverage
        if quantity.linear:
            sizes, offsets = np.array([len(atoms) for atoms in frames]), np.array([quantity.offset(atoms) for atoms in frames])
            low, high = p.interval("energy", coverage)
            posterior = getattr(p, "energy_posterior", None)
            raw = p.energy_std if posterior is None else posterior
            columns = ((p.energy - offsets) / sizes, p.energy_std / sizes, raw / sizes, (low - offsets) / sizes, (high - offsets) / sizes)
        else:
            from scipy.special import ndtri

            joint = self.model.posterior([quantity.of(atoms) for atoms in frames])
            half = float(ndtri((1 + coverage) / 2)) * joint.std
            columns = (joint.mean, joint.std, joint.std, joint.mean - half, joint.mean + half)
        names = ("value", "std", "posterior_std", "lower", "upper")
        return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]

    def _row(self, atoms: Atoms, p, values: dict) -> tuple[Atoms, dict, dict]:
        info = dict(atoms.info)
        novelty = getattr(p, "novelty", None)
        values = values | {"novelty": None if novelty is None else float(novelty[0].max())}
        values |= {"relaxed": info.get("relaxed"), "relax_steps": info.get("relax_steps"), "flags": self._flags(p, values, info)}
        stress = {"stress": p.stress[0]} if np.isfinite(p.stress[0]).all() else {}
        atoms.calc = SinglePointCalculator(atoms, energy=float(p.energy[0]), forces=p.forces[0], **stress)
        if not np.isfinite(values["value"]):
            raise InputError("the prediction is not finite")
        return atoms, plain(values), {"fingerprint": fingerprint(atoms, p)}

    def _flags(self, p, values: dict, info: dict) -> str:
        """What to beware of, names with blanks between; ``-`` for nothing."""
        promised = getattr(p, "promised", None)
        found = {
            "outside": p.outside is not None and bool(p.outside[0]),
            "novel": (values["novelty"] or 0.0) > 1.0,
            "unpromised": promised is not None and not bool(promised("energy", self.settings.coverage)[0]),
            "unrelaxed": info.get("relaxed") is False,
        }
        return " ".join(name for name, true in found.items() if true) or "-"


def _bare(atoms: Atoms | None) -> Atoms:
    """Elements, positions, cell and constraints; an empty structure for one that cannot be read, or is not of elements."""
    if atoms is None or (len(atoms) and not 0 <= atoms.numbers.min() <= atoms.numbers.max() < len(chemical_symbols)):
        return Atoms()
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.set_constraint(atoms.constraints)
    return bare
