"""Prior means, subtracted from the data before the fit and added to predictions: reference energies, core repulsion, any ASE calculator."""

from soapkrr.baselines.base import Baseline, check_baseline, split_baseline, subtract, total
from soapkrr.baselines.calculator import CalculatorBaseline
from soapkrr.baselines.core import CoreRepulsion
from soapkrr.baselines.references import baseline_energies, reference_energies
from soapkrr.baselines.zbl import ZBL

__all__ = [
    "ZBL",
    "Baseline",
    "CalculatorBaseline",
    "CoreRepulsion",
    "baseline_energies",
    "check_baseline",
    "reference_energies",
    "split_baseline",
    "subtract",
    "total",
]
