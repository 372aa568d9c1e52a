"""Reading a model file back as the estimator that wrote it."""

from __future__ import annotations

import os

from ase.data import atomic_numbers

from soapkrr import estimators
from soapkrr.baselines import named
from soapkrr.errors import InputError, ModelFileError
from soapkrr.estimators.card import restored_card
from soapkrr.estimators.fitted import Estimator
from soapkrr.execution.memory import parse_memory
from soapkrr.modelfile import calculator_places, damage, from_json, prior_mean_names, read
from soapkrr.regression.origin import restored_origin


def load(
    path: str | os.PathLike,
    baseline_calculator=None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory_limit: int | str | None = None,
) -> Estimator:
    """Read a model written by `save`.

    Parameters
    ----------
    device, threads, memory_limit : where it computes and with how much memory, as in the estimators.
    baseline_calculator : the ASE calculator of a model whose ``baseline`` has one: calculators are not saved.

    Raises
    ------
    InputError : the model needs ``baseline_calculator``, or has no use for it; its prior mean has a name that is not known here, or needs
        a package that is not installed; or it is of a property and the ``device`` is a GPU.
    ModelFileError : not a soapkrr model, truncated, corrupt, or written by a newer version.
    FileNotFoundError : there is no such file.
    """
    parse_memory(memory_limit)  # raises
    model = opened(path, baseline_calculator)
    for mean in getattr(model, "prior_means_", ()):
        mean.check()
    runtime, known = {"threads": threads, "memory_limit": memory_limit, "device": device}, model.get_params(deep=False)
    if device == "cuda" and "device" not in known:
        raise InputError(f"`device`='cuda' is for potentials; this is a {type(model).__name__}, which is computed on the CPU.")
    idle = [name for name in ("threads", "memory_limit") if runtime[name] is not None and name not in known]
    if idle:
        raise InputError(f"`{idle[0]}`: a {type(model).__name__} has no use for it.")
    runtime = {name: value for name, value in runtime.items() if name in known}
    return model.set_params(**runtime)


def opened(path: str | os.PathLike, baseline_calculator=None) -> Estimator:
    """The model of a file, to look at: what its prior mean needs may be missing here."""
    file = read(path)
    places = calculator_places(file.header)
    _check_calculator(places, baseline_calculator)
    for name in prior_mean_names(file.header):
        named(name)  # raises for one that is unknown here, which is no damage
    for place in places:
        place |= {"calculator": baseline_calculator}
    with damage(path):
        return _rebuilt(file.header, file.arrays)


def _rebuilt(header: dict, arrays: dict) -> Estimator:
    if header["estimator"] not in estimators.__all__:
        raise ModelFileError(f"the file names an unknown estimator {header['estimator']!r}.")
    model = getattr(estimators, header["estimator"])(**from_json(header["parameters"], arrays))
    references = header["state"]["reference_energies"]
    if not set(references) <= set(atomic_numbers):
        raise ModelFileError(f"the file has reference energies of {sorted(references)}, which are not all elements.")
    model.restore(from_json(header["state"], arrays))
    model.origin_ = restored_origin(header["origin"])
    model.card = restored_card(header["state"].get("card"))
    return model


def _check_calculator(places: list[dict], calculator) -> None:
    if places and calculator is None:
        name = places[0].get("calculator")
        raise InputError(f"this model was fitted on top of a calculator ({name}), which files do not hold: pass `baseline_calculator`.")
    if calculator is not None and not places:
        raise InputError("`baseline_calculator` was given, but this model was fitted without one.")
