"""Predictions against reference labels: errors, coverage of intervals, and scores of standard deviations."""

from soapkrr.display import only_public
from soapkrr.metrics.calibration import calibration_table
from soapkrr.metrics.comparison import (
    UNIT_NAMES,
    UNITS,
    VANISHING,
    Comparison,
    check_lengths,
    comparisons,
    comparisons_with_std,
    members_by,
    residuals,
)
from soapkrr.metrics.errors import ErrorTable, ErrorTables, error_table, percent

__all__ = [
    "UNITS",
    "UNIT_NAMES",
    "VANISHING",
    "Comparison",
    "ErrorTable",
    "ErrorTables",
    "calibration_table",
    "check_lengths",
    "comparisons",
    "comparisons_with_std",
    "error_table",
    "members_by",
    "percent",
    "residuals",
]

__dir__ = only_public(__name__)
