"""What a fit or a prediction costs, and how it is divided: planned above the algorithms, before anything large is allocated."""

from soapkrr.planning import exact, iterative, scalar, sparse
from soapkrr.planning.leave_out import with_leave_out
from soapkrr.planning.plan import Plan
from soapkrr.planning.work import Budget, Task, Work, fit_work, prediction_work, unfitted_prediction_work

__all__ = [
    "Budget",
    "Plan",
    "Task",
    "Work",
    "exact",
    "fit_work",
    "iterative",
    "prediction_work",
    "scalar",
    "sparse",
    "unfitted_prediction_work",
    "with_leave_out",
]
