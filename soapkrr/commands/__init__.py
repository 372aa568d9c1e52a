"""What the commands of the command line do: each takes parsed arguments and returns a `Report`.

Heavy modules are imported inside the functions, so that ``soapkrr --help`` is quick.
"""

from soapkrr.commands.describing import info
from soapkrr.commands.evaluating import evaluate
from soapkrr.commands.fitting import fit
from soapkrr.commands.relaxing import relax
from soapkrr.commands.tables import UNCERTAINTY, Report

__all__ = ["UNCERTAINTY", "Report", "evaluate", "fit", "info", "relax"]
