"""Strange structures through five kinds of model, compared with the slow twins of the same model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from harness import RIGHT, UNCHECKED, Attempt, Wrong
from structures import structures
from twins import affordable, models, numbers, parts_of, reach, rounding, slow_prediction

from soapkrr import InputError
from soapkrr.structures import Batch
from soapkrr.uncertainty.calibrated import CalibratedPrediction

#: Atoms up to which all standard deviations are asked for, and beyond which none; neighbours of an atom up to which those of forces are,
#: which take some ten predictions.
SMALL, LARGE, NEIGHBOURS = 12, 100, 200


def attempts(n: int, seed: int = 0) -> Iterator[Attempt]:
    """n structures, each through every kind of model."""
    for name, atoms in structures(n, seed):
        kind = name.rsplit(" ", 1)[0]
        wanted = _wanted(atoms)
        for label, model in models().items():
            yield Attempt(kind, f"{name} ({label})", predicted(model, atoms, wanted), judged(model, atoms, wanted))


def _wanted(atoms) -> frozenset[str]:
    """Standard deviations that do not take long."""
    if len(atoms) > LARGE:
        return frozenset()
    try:
        few = len(Batch.from_atoms([atoms]).pairs(4.0).j) <= NEIGHBOURS * len(atoms)
    except InputError:
        few = True
    return frozenset({"energy", "energies", "forces", "stress"} if few and len(atoms) <= SMALL else {"energies"})


def predicted(model, atoms, wanted):
    def action():
        try:
            return model.predict(atoms, uncertainty=wanted)
        except InputError as error:
            if "frame 0" not in str(error):
                raise Wrong(f"an error that names no frame: {error}") from error
            raise

    return action


def judged(model, atoms, wanted):
    def judge(prediction):
        whole = "parts" not in atoms.info or len(atoms.info["parts"]) == 1
        found = numbers(prediction, whole)
        _check_finite(prediction, atoms)
        if not affordable(atoms, reach(model)):
            return UNCHECKED
        parts = parts_of(atoms)
        expected = numbers(slow_prediction(model, parts, wanted & {"energies"} if not whole else wanted), whole)
        if not np.array_equal(np.isnan(found), np.isnan(expected)):
            raise Wrong("numbers where the slow twin has none, or none where it has")
        far = np.nanmax(np.abs(found - expected))
        if far > (allowed := 1e-9 * (1 + np.nanmax(np.abs(expected)))) and far > allowed + _from_rounding(
            model, atoms, parts, wanted, whole, expected
        ):
            raise Wrong(f"{far:.3g} from the slow twin")
        return RIGHT

    return judge


def _check_finite(prediction, atoms) -> None:
    values = [prediction.energy, *prediction.energies, *prediction.forces, *(prediction.energies_std or []), *(prediction.forces_std or [])]
    if not all(np.isfinite(value).all() for value in values):
        raise Wrong("a number that is not finite")
    if any((value < 0).any() for value in (prediction.energies_std or [])):
        raise Wrong("a negative standard deviation")
    if isinstance(prediction, CalibratedPrediction) and prediction.energies_std is not None:
        _check_error_bars(prediction)


def _check_error_bars(prediction: CalibratedPrediction) -> None:
    """Parts add up, intervals hold the prediction (without end where nothing is promised), and novelty is a number."""
    parts = prediction.parts("energies")
    for s, std in enumerate(prediction.energies_std or []):
        if not np.allclose(np.sqrt(sum(part[s] ** 2 for part in parts.values())), std, rtol=1e-9, atol=1e-12):
            raise Wrong("parts of a standard deviation that do not add up to it")
    for kind in ("energies", *(["forces"] if prediction.forces_std is not None else [])):
        lower, upper = prediction.interval(kind, 0.9)
        for low, value, high in zip(lower, getattr(prediction, kind), upper, strict=True):
            if not ((low <= value) & (value <= high)).all():
                raise Wrong(f"an interval of {kind} without the prediction in it")
    if not all(np.isfinite(x).all() and (x >= 0).all() for x in prediction.novelty or []):
        raise Wrong("a novelty that is no number")


def _from_rounding(model, atoms, parts, wanted, whole, expected) -> float:
    """How far the slow twin's numbers move when positions do by a few roundings."""
    rng, far = np.random.default_rng(0), 0.0
    for _ in range(2):
        moved = [part.copy() for part in parts]
        for part in moved:
            part.positions += rounding(atoms) * rng.normal(size=part.positions.shape)
        far = max(
            far, np.nanmax(np.abs(numbers(slow_prediction(model, moved, wanted & {"energies"} if not whole else wanted), whole) - expected))
        )
    return 20 * far
