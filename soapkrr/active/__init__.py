"""Decisions that need few reference calculations: relaxations, barriers and dynamics that ask for what they do not know, screenings."""

from soapkrr.active.barrier import Barrier, SurrogateNEB
from soapkrr.active.dimer import Saddle, SurrogateDimer
from soapkrr.active.extrapolation import extrapolations
from soapkrr.active.on_the_fly import OnTheFly
from soapkrr.active.relaxation import SurrogateRelaxation

__all__ = ["Barrier", "OnTheFly", "Saddle", "SurrogateDimer", "SurrogateNEB", "SurrogateRelaxation", "extrapolations"]
