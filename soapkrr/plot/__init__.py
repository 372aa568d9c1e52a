"""Figures. They need matplotlib: ``pip install "soapkrr[plot]"``."""

from soapkrr.plot.calibration import calibration
from soapkrr.plot.parity import parity

__all__ = ["calibration", "parity"]
