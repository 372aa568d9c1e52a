"""What the values of options may be: each turns text into a value, or says what was expected."""

from __future__ import annotations

import argparse


def positive_int(text: str) -> int:
    value = int(text) if text.lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return value


def count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected an integer, at least 0, received {text!r}")
    return int(text)


def references(text: str):
    """Energies of the elements, or the name of a file."""
    return assignments(text, float) if "=" in text else text


def fraction(text: str) -> float:
    value = _float(text)
    if value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, such as 0.1, received {text!r}")
    return value


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def folds(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 2:
        raise argparse.ArgumentTypeError(f"expected a number of parts, at least 2, such as 5, received {text!r}")
    return value


def seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected an integer, at least 0, received {text!r}")
    return int(text)


def memory(text: str) -> str | None:
    if text == "none":
        return None
    from soapkrr.errors import InputError
    from soapkrr.execution.memory import parse_memory

    try:
        parse_memory(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def symbols(text: str) -> list[str]:
    return text.replace(",", " ").split()


def assignments(text: str, kind) -> dict:
    """``Si=-158.2,O=-432`` as a dictionary."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        table = {symbol.strip(): kind(value) for symbol, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER,NAME=NUMBER,.. , received {text!r}") from None
    if len(table) != len(pairs):
        raise argparse.ArgumentTypeError(f"a name occurs twice in {text!r}")
    return table


def baseline(text: str):
    if "=" in text and ":" not in text:
        return assignments(text, float)
    from soapkrr.baselines import automatic_name, split_baseline
    from soapkrr.errors import InputError

    try:
        if automatic_name(text) is None:
            split_baseline(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).replace("`baseline`=", "")) from None
    return text


def config_noise(text: str) -> tuple[str, dict[str, float]]:
    name, separator, levels = text.rpartition(":")
    if not (separator and name):
        raise argparse.ArgumentTypeError(f"expected TYPE:KIND=NUMBER,.. such as liquid:forces=0.2,energy=0.01, received {text!r}")
    return name, assignments(levels, float)


def count_or_counts(text: str):
    return assignments(text, positive_int) if "=" in text else positive_int(text)
