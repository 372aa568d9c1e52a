"""What the errors of left-out labels say of the size of errors to come, and predictions that take account of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from soapkrr import backends
from soapkrr.prediction import TOTAL, UNCERTAINTIES, Prediction
from soapkrr.regression import stored
from soapkrr.regression.process import Predictor, Process
from soapkrr.structures import Batch
from soapkrr.uncertainty.calibrated import CalibratedPrediction
from soapkrr.uncertainty.conformal import ANY, EVERY, Cell, Scores, cells_state, restored_cells
from soapkrr.uncertainty.novelty import Neighbourhood, restored_neighbourhood
from soapkrr.uncertainty.repeats import Noise, restored_noise
from soapkrr.uncertainty.scales import ForceScale, TotalScale, restored_force, restored_total

#: Atoms whose descriptors are projected at once.
BLOCK = 512


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sizes of errors, their scores, and surroundings that are known; of a kind without labels nothing.

    Attributes
    ----------
    totals : {"energy" or "stress": `TotalScale`}.  forces : {symbol: `ForceScale`}.
    scores : {"energy", "forces", "balls" or "stress": {cell: `Scores`}}; cells as in `conformal.cells_of`.
    surroundings : {symbol: `Neighbourhood`}.  noise : {kind: `Noise` of labels} where it is known.
    """

    totals: Mapping[str, TotalScale]
    forces: Mapping[str, ForceScale]
    scores: Mapping[str, Mapping[Cell, Scores]]
    surroundings: Mapping[str, Neighbourhood]
    noise: Mapping[str, Noise]

    @property
    def structures(self) -> int:
        """Left-out structures that it is learnt from, of the kind that has most."""
        return max((cells[EVERY].structures for cells in self.scores.values()), default=0)

    @property
    def config_types(self) -> list[str]:
        """Configuration types that have intervals of their own, of any kind."""
        return sorted({name for cells in self.scores.values() for _, name in cells} - {ANY})

    def applied(self, p: Prediction, batch: Batch, process: Process, xp=np) -> CalibratedPrediction:
        """The prediction of a batch with calibrated standard deviations; where it has any, those of atoms' energies must be there."""
        known = {name: getattr(p, name) for name in p.__dataclass_fields__}
        known |= {f"{kind}_posterior": getattr(p, f"{kind}_std") for kind in UNCERTAINTIES}
        symbols = [np.array([chemical_symbols[z] for z in part]) for part in np.split(batch.numbers, batch.inner_bounds)]
        changed = {} if p.energies_std is None else self._changed(p, batch, process, xp)
        return CalibratedPrediction(**{**known, **changed}, symbols=symbols, scores=self.scores, noise=self.noise)

    def _changed(self, p: Prediction, batch: Batch, process: Process, xp) -> dict:
        """Calibrated standard deviations, novelty, and nearest surroundings."""
        thresholds = {atomic_numbers[symbol]: place.energy for symbol, place in self.surroundings.items()}
        novelty = np.concatenate(p.energies_std) / np.array([thresholds[z] for z in batch.numbers.tolist()])
        of_structure = np.maximum.reduceat(novelty, batch.offsets[:-1])
        changed = {}
        if "energy" in self.totals:
            scale = self.totals["energy"]
            changed["energies_std"] = scale(np.concatenate(p.energies_std), 1.0, novelty)
            if p.energy_std is not None:
                changed["energy_std"] = scale(p.energy_std, batch.sizes, of_structure)
        if "stress" in self.totals and p.stress_std is not None:
            changed["stress_std"] = self.totals["stress"](p.stress_std, 1.0, of_structure[:, None])
        changed |= {"novelty": novelty} if p.forces_std is None else self._of_forces(p, batch, process, xp, novelty)
        of_atoms = ("energies_std", "forces_std", "novelty", "nearest", "distance")
        return {name: np.split(values, batch.inner_bounds) if name in of_atoms else values for name, values in changed.items()}

    def _of_forces(self, p: Prediction, batch: Batch, process: Process, xp, novelty: np.ndarray) -> dict[str, np.ndarray]:
        """Standard deviations of forces, novelty by these, and the nearest surroundings, of all atoms."""
        sigma, forces = np.concatenate(p.forces_std), np.concatenate(p.forces)
        std, distance, nearest = sigma.copy(), np.empty(len(sigma)), np.empty((len(sigma), 2), dtype=int)
        by_force = novelty.copy()
        for symbol, y in projections(self.forces, process, batch, xp).items():
            mine, place = np.flatnonzero(batch.numbers == atomic_numbers[symbol]), self.surroundings[symbol]
            distance[mine], point = place.nearest(y)
            nearest[mine] = np.column_stack([place.structure[point], place.atom[point]])
            std[mine] = self.forces[symbol](sigma[mine], forces[mine], y, novelty[mine])
            if "forces" in self.scores:
                by_force[mine] = np.linalg.norm(std[mine], axis=1) / place.force
        return {"forces_std": std, "novelty": by_force, "nearest": nearest, "distance": distance}

    def state(self) -> dict:
        """For a model file."""
        return {
            "totals": {kind: scale.state() for kind, scale in self.totals.items()},
            "forces": {symbol: scale.state() for symbol, scale in self.forces.items()},
            "scores": {kind: cells_state(cells) for kind, cells in self.scores.items()},
            "surroundings": {symbol: place.state() for symbol, place in self.surroundings.items()},
            "noise": {kind: vars(noise).copy() for kind, noise in self.noise.items()},
        }


def projections(scales: Mapping[str, ForceScale], process: Process, batch: Batch, xp=np) -> dict[str, np.ndarray]:
    """{symbol: (n, k) projected descriptors of the batch's atoms of it, in order}."""
    env = process.descriptors[0].environments(batch, xp)
    axes = {atomic_numbers[s]: (s, xp.asarray(scale.centre), xp.asarray(scale.axes)) for s, scale in scales.items()}
    found: dict[str, list] = {symbol: [] for symbol in scales}
    for start in range(0, batch.n_atoms, BLOCK):
        X, _ = env.block(start, min(start + BLOCK, batch.n_atoms))
        numbers = batch.numbers[start : start + BLOCK]
        for z, (symbol, centre, directions) in axes.items():
            mine = np.flatnonzero(numbers == z)
            if len(mine):
                found[symbol].append(backends.host((X[xp.asarray(mine)] - centre) @ directions))
    return {symbol: np.concatenate(parts) for symbol, parts in found.items() if parts}


@dataclass(frozen=True)
class CalibratedPredictor:
    """A `Predictor` and the calibration of what it predicts."""

    predictor: Predictor
    calibration: Calibration

    @property
    def process(self) -> Process:
        """The posterior."""
        return self.predictor.process

    def __call__(self, batch: Batch, wanted: frozenset[str]) -> CalibratedPrediction:
        """Prediction of a batch with the calibrated standard deviations ``wanted``."""
        xp = backends.library(self.predictor.device)
        # What an error of a total is expected to be depends on how novel the atoms are.
        with_atoms = wanted - {TOTAL} | {"energies"} | ({"energy"} if TOTAL in wanted else set()) if wanted else wanted
        p = self.calibration.applied(self.predictor(batch, with_atoms), batch, self.process, xp)
        return p if "energies" in wanted else replace(p, energies_std=None, energies_posterior=None)


def restored_calibration(state) -> Calibration | None:
    """From a model file; None of a model that was not calibrated."""
    if state is None:
        return None
    parts = {name: stored.mapping(state[name], f"calibration.{name}") for name in ("totals", "forces", "scores", "surroundings", "noise")}
    return Calibration(
        {kind: restored_total(scale, f"calibration.totals.{kind}") for kind, scale in parts["totals"].items()},
        {symbol: restored_force(scale, f"calibration.forces.{symbol}") for symbol, scale in parts["forces"].items()},
        {kind: restored_cells(cells, f"calibration.scores.{kind}") for kind, cells in parts["scores"].items()},
        {symbol: restored_neighbourhood(place, f"calibration.surroundings.{symbol}") for symbol, place in parts["surroundings"].items()},
        {kind: restored_noise(noise, f"calibration.noise.{kind}") for kind, noise in parts["noise"].items()},
    )
