"""Figures. They need matplotlib, of the extra ``plot``."""

from soapkrr.plot.calibration import calibration
from soapkrr.plot.chemistry import chemistry
from soapkrr.plot.data import attribution, learning_curve
from soapkrr.plot.decisions import barrier, on_the_fly, regret, relaxation
from soapkrr.plot.error_bars import error_vs_std, novelty, reliability
from soapkrr.plot.pareto import pareto
from soapkrr.plot.parity import parity

__all__ = [
    "attribution",
    "barrier",
    "calibration",
    "chemistry",
    "error_vs_std",
    "learning_curve",
    "novelty",
    "on_the_fly",
    "pareto",
    "parity",
    "regret",
    "relaxation",
    "reliability",
]
