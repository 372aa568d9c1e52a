"""Prior means, subtracted from the data before the fit and added to predictions: reference energies, core repulsion, any ASE calculator.

Those that have a name (`sources`) are given, saved and loaded by it; `register` adds names, `keep_results` says where results are kept.
"""

from soapkrr.baselines.argument import (
    KEYWORDS,
    SUGGESTED,
    automatic_name,
    check_baseline,
    is_computed,
    parts_of,
    split_baseline,
    with_mean,
    without_auto,
)
from soapkrr.baselines.base import Baseline, total
from soapkrr.baselines.calculator import CalculatorBaseline, ComputedBaseline
from soapkrr.baselines.core import CoreRepulsion
from soapkrr.baselines.coulomb import Coulomb
from soapkrr.baselines.named import NamedBaseline, named
from soapkrr.baselines.reduction import left_out_text, prepared, reduced, subtract, warn_left_out
from soapkrr.baselines.references import baseline_energies, reference_energies
from soapkrr.baselines.scaled import ScaledBaseline
from soapkrr.baselines.sources import register
from soapkrr.baselines.spline import PairSpline
from soapkrr.baselines.store import keep_results
from soapkrr.baselines.zbl import ZBL

__all__ = [
    "KEYWORDS",
    "SUGGESTED",
    "ZBL",
    "Baseline",
    "CalculatorBaseline",
    "ComputedBaseline",
    "CoreRepulsion",
    "Coulomb",
    "NamedBaseline",
    "PairSpline",
    "ScaledBaseline",
    "automatic_name",
    "baseline_energies",
    "check_baseline",
    "is_computed",
    "keep_results",
    "left_out_text",
    "named",
    "parts_of",
    "prepared",
    "reduced",
    "reference_energies",
    "register",
    "split_baseline",
    "subtract",
    "total",
    "warn_left_out",
    "with_mean",
    "without_auto",
]
