"""The few hot loops, once for the CPU (numba) and once for the GPU (CUDA): same names, same signatures.

The data decide: a function asks `of` for the loops and `namespace` for the array functions that belong to the arrays it was given.
Only modules in here know numba, CUDA or which library holds an array.
"""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np

from soapkrr.errors import InputError, installing


def namespace(array):
    """The library whose array this is: `numpy` or `cupy`."""
    return sys.modules["cupy"] if on_gpu(array) else np


def on_gpu(array) -> bool:
    """Whether an array lives on a GPU."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def of(array):
    """The package of loops for an array: `backends.cpu` or `backends.gpu`, with modules of the same names."""
    return loops(namespace(array))


def loops(xp):
    """The package of loops for arrays of ``xp``."""
    return import_module(f"{__name__}.{'cpu' if xp is np else 'gpu'}")


def threads(xp, wanted):
    """How many of the ``wanted`` threads work on blocks: a GPU takes one block after the other."""
    return wanted if xp is np else 1


def library(device: str):
    """`numpy` or `cupy` for ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one.

    Raises
    ------
    InputError : no such device, or no GPU that CuPy can use.
    """
    if device not in ("cpu", "cuda", "auto"):
        raise InputError(f"`device` must be 'cpu', 'cuda' or 'auto', received {device!r}.")
    if device == "cpu":
        return np
    try:
        cupy = import_module("cupy")
        count, why = cupy.cuda.runtime.getDeviceCount(), "it finds no GPU"
    except ImportError as error:
        count, why = 0, f"it cannot be imported ({error}); {installing('gpu')}"
    except Exception as error:  # CuPy's own type of error exists only where CuPy does
        if type(error).__name__ != "CUDARuntimeError":
            raise
        count, why = 0, str(error)
    if count:
        return cupy
    if device == "auto":
        return np
    raise InputError(f"`device`='cuda' needs a GPU and CuPy: {why}.")


def out_of_memory() -> tuple[type[Exception], ...]:
    """What a GPU's library raises when the memory of the device runs out; nothing where no such library is in use."""
    cupy = sys.modules.get("cupy")
    return () if cupy is None else (cupy.cuda.memory.OutOfMemoryError,)


def free_memory() -> None:
    """Give memory that a GPU's library keeps for later back to the device."""
    cupy = sys.modules.get("cupy")
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()


def host(value):
    """NumPy arrays in place of GPU arrays; lists, tuples and mappings of them too, anything else as it is."""
    if on_gpu(value):
        return value.get()
    return _mapped(host, value)


def moved(xp, value):
    """Arrays of ``xp`` in place of any others; lists, tuples (named too) and mappings of them too, anything else as it is."""
    if xp is np:
        return host(value)
    if isinstance(value, np.ndarray):
        return xp.asarray(value)
    return _mapped(lambda part: moved(xp, part), value)


def _mapped(function, value):
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(function, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(function, value))
    if isinstance(value, dict):
        return {name: function(part) for name, part in value.items()}
    return value
