"""Exceptions of the package: each is also a ``ValueError``, so that callers need no new import."""

import re
from math import isfinite
from numbers import Real

#: What can go wrong with one structure and is no reason to leave out the others.
FAILURES = (ValueError, ArithmeticError, RuntimeError, MemoryError)


class InputError(ValueError):
    """Data or parameters given by the user cannot be used; the message names the culprit and what to do."""


class MemoryLimitError(InputError):
    """A memory limit, or the memory of a device, does not hold the work; the message says what would."""


class LabelError(InputError):
    """A reference label (energy, forces, stress) is missing, malformed or not finite."""


class ModelFileError(InputError):
    """A file is not a readable soapkrr model."""


class DataWarning(UserWarning):
    """Labels do not look like those of one calculation: a fit of them is not to be trusted before they were looked at."""


class ConditionWarning(UserWarning):
    """A fit is so badly conditioned that rounding shows in its predictions."""


class ExtrapolationError(InputError):
    """A calculator with ``action="stop"`` met a structure that its model does not know well enough."""


class ExtrapolationWarning(UserWarning):
    """A calculator met a structure that its model does not know well enough."""


def reason(error: BaseException) -> str:
    """What an error says of a structure, without the place that it had in the list at hand."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"^frame \d+(: |, | )", "", text) if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def require_positive(**values) -> None:
    """Raise `InputError` naming the first argument that is not a positive finite number."""
    for name, value in values.items():
        if not (isinstance(value, Real) and isfinite(value) and value > 0):
            raise InputError(f"`{name}` must be a positive finite number, received {value!r}.")


def installing(extra: str) -> str:
    """How an optional dependency is installed, for messages."""
    return f'pip install "soapkrr[{extra}]" (in a checkout: pip install ".[{extra}]")'
