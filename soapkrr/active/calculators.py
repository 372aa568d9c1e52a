"""Reference calculators by what a command line can say: a name, a module's function, or a file."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from ase.calculators.calculator import BaseCalculator, get_calculator_class

from soapkrr.baselines import NamedBaseline, named
from soapkrr.errors import InputError

#: Suffixes of files that describe a calculator.
SUFFIXES = (".json", ".yaml", ".yml")


def reference_calculator(text: str) -> BaseCalculator:
    """An ASE calculator from what stands for one.

    ``"emt"``, ``"gfn2"`` and other names of prior means; ``"module:function"``, called without arguments; or a JSON or YAML file such as
    ``{"calculator": "gpaw", "xc": "PBE", "kpts": [4, 4, 1]}``: the name that ASE has for it, and its parameters.

    Raises
    ------
    InputError : there is no such name, module, function or file, or it makes no calculator; the message says which.

    Examples
    --------
    >>> type(reference_calculator("emt")).__name__
    'EMT'
    >>> type(reference_calculator("ase.calculators.lj:LennardJones")).__name__
    'LennardJones'
    """
    if Path(text).suffix.lower() in SUFFIXES:
        return _from_file(Path(text))
    module, _, function = text.partition(":")
    if function and ("." in module or "=" not in function) and module not in ("d3", "gfn1", "gfn2", "emt"):
        return _checked(text, _called(text, module, function))
    prior = named(text)
    if not isinstance(prior, NamedBaseline):
        raise InputError(f"`reference`={text!r} is a prior mean, not a calculator; take 'emt', 'gfn1', 'gfn2', or module:function.")
    return prior.make_calculator()


def _called(text: str, module: str, function: str):
    try:
        return getattr(import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(f"`reference`={text!r} cannot be called without arguments: {type(error).__name__}: {error}.") from error


def _from_file(path: Path) -> BaseCalculator:
    try:
        content = path.read_text(encoding="utf-8")
        options = json.loads(content) if path.suffix.lower() == ".json" else import_module("yaml").safe_load(content)
    except ImportError as error:
        raise InputError(f"`reference`: {path} needs PyYAML, which is not installed; write it as .json.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"`reference`: {path} cannot be read: {error}.") from error
    if not isinstance(options, dict) or not isinstance(options.get("calculator"), str):
        raise InputError(f"`reference`: {path} must hold a mapping with `calculator`, the name of one of ASE's, and its parameters.")
    name = options.pop("calculator")
    try:
        return _checked(str(path), get_calculator_class(name)(**options))
    except (ImportError, TypeError, ValueError) as error:
        raise InputError(f"`reference`: {path}: {name!r} cannot be made, {type(error).__name__}: {error}.") from error


def _checked(text: str, made) -> BaseCalculator:
    if not isinstance(made, BaseCalculator):
        raise InputError(f"`reference`={text!r} makes a {type(made).__name__}, not an ASE calculator.")
    return made
