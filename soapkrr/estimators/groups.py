"""Prediction of structures that are handled at once."""

from __future__ import annotations

from functools import partial

from ase import Atoms

from soapkrr.execution.blocks import halved_group, split_on_out_of_memory
from soapkrr.prediction import Prediction
from soapkrr.regression.process import Predictor
from soapkrr.structures import Batch
from soapkrr.uncertainty.calibration import CalibratedPredictor


def predict_group(predictor: Predictor | CalibratedPredictor, wanted: frozenset[str], group: tuple[int, list[Atoms]]) -> Prediction:
    """Prediction of (index of the first structure, structures), in halves where a GPU's memory does not hold it."""

    def predict(part):
        first, frames = part
        return predictor(Batch.from_atoms(frames, first), wanted)

    smaller = partial(halved_group, work="prediction", instead="use fewer sparse points or ask for fewer standard deviations")
    return Prediction.concatenate(list(split_on_out_of_memory(predict, group, smaller)))
