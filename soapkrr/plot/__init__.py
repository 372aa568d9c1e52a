"""Figures. They need matplotlib, of the extra ``plot``."""

from soapkrr.display import only_public
from soapkrr.plot.calibration import calibration
from soapkrr.plot.chemistry import chemistry
from soapkrr.plot.data import attribution, learning_curve
from soapkrr.plot.decisions import barrier, on_the_fly, regret, relaxation
from soapkrr.plot.error_bars import error_vs_std, novelty, reliability
from soapkrr.plot.functions import dimers, radial
from soapkrr.plot.map import data_map
from soapkrr.plot.pareto import pareto
from soapkrr.plot.parity import parity
from soapkrr.plot.residuals import residuals
from soapkrr.plot.trajectory import trajectory

__all__ = [
    "attribution",
    "barrier",
    "calibration",
    "chemistry",
    "data_map",
    "dimers",
    "error_vs_std",
    "learning_curve",
    "novelty",
    "on_the_fly",
    "pareto",
    "parity",
    "radial",
    "regret",
    "relaxation",
    "reliability",
    "residuals",
    "trajectory",
]

__dir__ = only_public(__name__)
