"""Figures. They need matplotlib, of the extra ``plot``."""

from soapkrr.plot.calibration import calibration
from soapkrr.plot.chemistry import chemistry
from soapkrr.plot.data import attribution, learning_curve
from soapkrr.plot.error_bars import error_vs_std, novelty, reliability
from soapkrr.plot.pareto import pareto
from soapkrr.plot.parity import parity

__all__ = ["attribution", "calibration", "chemistry", "error_vs_std", "learning_curve", "novelty", "pareto", "parity", "reliability"]
