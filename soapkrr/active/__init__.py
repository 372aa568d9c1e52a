"""Models that ask a reference calculator for what they do not know yet: relaxations, barriers and dynamics that spare its calls."""

from soapkrr.active.barrier import Barrier, SurrogateNEB
from soapkrr.active.dimer import Saddle, SurrogateDimer
from soapkrr.active.on_the_fly import OnTheFly
from soapkrr.active.relaxation import SurrogateRelaxation

__all__ = ["Barrier", "OnTheFly", "Saddle", "SurrogateDimer", "SurrogateNEB", "SurrogateRelaxation"]
