"""Figures. They need matplotlib, of the extra ``plot``."""

from soapkrr.plot.calibration import calibration
from soapkrr.plot.parity import parity

__all__ = ["calibration", "parity"]
