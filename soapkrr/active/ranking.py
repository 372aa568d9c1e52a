"""Who is best, with which probability, and whose labels would tell: one decision on all candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from soapkrr.active.decision import FAR, Belief, among, below, choose, standing
from soapkrr.active.quantity import Quantity
from soapkrr.active.settings import Settings
from soapkrr.errors import InputError
from soapkrr.uncertainty.observables import Energy

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential

#: Candidates nearest to the threshold, whose joint posterior is computed; the others are decided by their own standard deviations.
SHORTLIST = 400


@dataclass(frozen=True, eq=False)
class Predicted:
    """What rows of n distinct candidates say: (n,) values, calibrated and posterior standard deviations, lower limits, energies (eV)."""

    value: np.ndarray
    std: np.ndarray
    posterior_std: np.ndarray
    lower: np.ndarray
    energy: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[dict]) -> Predicted:
        """From rows of a ledger."""
        names = ("value", "std", "posterior_std", "lower", "energy")
        return cls(*(np.array([row.get(name, -np.inf) for row in rows], dtype=float) for name in names))


@dataclass(frozen=True, eq=False)
class Decision:
    """Of n candidates: (n,) probabilities, order (n,) best first, and those to label next."""

    probability: np.ndarray
    order: np.ndarray
    next: list[int]


def belief(model: Potential, frames: Sequence[Atoms], quantity: Quantity, predicted: Predicted) -> Belief:
    """Joint distribution of the values that the reference has for structures, of which predictions are there already.

    Covariances are what labels can take away of the posterior's, φ·(RᵀR)⁻¹φ′ (of an exact process all of it). The rest of the calibrated
    variance of a value, at least the noise of a label, is its own: a label tells it, and nothing of it to others. Where calibrated standard
    deviations are smaller than the posterior's, covariances are in proportion.
    """
    sizes = np.array([len(atoms) for atoms in frames], dtype=float)
    wanted, n, sigma = [quantity.of(atoms) for atoms in frames], len(frames), model.noise_["energy"]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(predicted.posterior_std > 0, np.minimum(predicted.std / predicted.posterior_std, 1.0), 1.0)
    if quantity.linear:
        everything = slice(0, n)
        E = model.explained(wanted).block(everything, everything) * np.outer(ratio, ratio)
        own = np.maximum(predicted.std**2 - np.diagonal(E), sigma**2 / sizes)
        return Belief(predicted.value.copy(), E + np.diag(own), np.arange(n))
    everything = slice(0, 2 * n)
    E = model.explained([*wanted, *(Energy(atoms) for atoms in frames)]).block(everything, everything)
    own = np.concatenate([np.maximum(predicted.std**2 - np.diagonal(E)[:n], 0.0), sigma**2 * sizes])
    return Belief(np.concatenate([predicted.value, predicted.energy]), E + np.diag(own), n + np.arange(n))


def decide(model: Potential, predicted: Predicted, structures: Callable[[np.ndarray], Sequence[Atoms]], settings: Settings) -> Decision:
    """Probabilities, order and next labels of distinct candidates.

    Parameters
    ----------
    structures : gives the structures of some candidates by their numbers.

    Raises
    ------
    InputError : more labels are asked for than there are candidates.
    """
    n = len(predicted.value)
    if settings.next > n:
        raise InputError(f"`next` must be at most {n}, the number of distinct candidates that can be predicted, received {settings.next}.")
    alone = below(predicted.value, predicted.std, settings.below) if settings.below is not None else None
    alone = among(predicted.value, predicted.std, settings.best) if alone is None else alone
    probability = alone.probability.copy()
    near = np.sort(np.argsort(np.abs(alone.z), kind="stable")[:SHORTLIST])
    near = near[np.abs(alone.z[near]) < FAR]
    picked: list[int] = []
    if len(near) and (settings.next or settings.below is None):
        part = Predicted(*(getattr(predicted, name)[near] for name in Predicted.__dataclass_fields__))
        joint = belief(model, structures(near), settings.quantity, part)
        k = settings.best - (probability.sum() - probability[near].sum())
        probability[near] = standing(joint, settings.below, k).probability
        allowed = np.ones(len(near), dtype=bool)
        picked = [int(near[j]) for j in choose(joint, min(settings.next, len(near)), allowed, settings.below, k)]
    order = ordered(predicted, probability, settings.rank)
    picked += [int(j) for j in order if j not in set(picked)][: settings.next - len(picked)]
    return Decision(probability, order, picked)


def ordered(predicted: Predicted, probability: np.ndarray, rank: str) -> np.ndarray:
    """(n,) candidates, best first; equal ones by value, then as they came."""
    key = {"value": predicted.value, "lower": predicted.lower, "probability": -probability}[rank]
    return np.lexsort((np.arange(len(key)), predicted.value, key))
