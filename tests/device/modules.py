"""`cupy` and `cupyx` of the simulated device: the names that CuPy exports, done by NumPy on the memory of the arrays.

Stricter than CuPy where CuPy would go on with wrong numbers (indices out of bounds raise), and as permissive where that is the danger:
a Cholesky factor of an indefinite matrix is no error unless `cupyx.errstate(linalg="raise")` asks for one.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.linalg
import scipy.special

from device import arrays, kernels
from device.arrays import POOL, TOTAL_MEMORY, ndarray, operand, poisoned, unwrap, wrap

#: Functions that take arrays, lists or numbers of the host.
FROM_HOST = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite"}

#: Functions whose first argument may be a list: a shape, or several arrays.
TAKES_LIST = {"zeros", "ones", "empty", "full", "concatenate", "stack", "vstack", "hstack", "dstack", "column_stack", "block", "select"}

#: What the methods of ufuncs are restricted to.
UFUNC_METHODS = {"at": ("add", "subtract", "maximum", "minimum"), "reduceat": ("add", "multiply"), "accumulate": ("add", "multiply")}


def names():
    """{name: parameters} of everything in names.txt."""
    lines = (Path(__file__).parent / "names.txt").read_text().splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if not line.startswith("#")}


class UFunc:
    """An elementwise function: device arrays and scalars only, and the few options that CuPy has."""

    def __init__(self, ufunc):
        self.ufunc, self.__name__, self.nin, self.nout = ufunc, ufunc.__name__, ufunc.nin, ufunc.nout

    def __call__(self, *args, **kwargs):
        _only(self.__name__, kwargs, ("out", "dtype", "casting"))
        return wrap(self.ufunc(*map(operand, args), **{name: unwrap(value) for name, value in kwargs.items()}))

    def __getattr__(self, name):
        if name not in ("at", "reduceat", "accumulate", "reduce", "outer"):
            raise AttributeError(name)
        if self.__name__ not in UFUNC_METHODS.get(name, (self.__name__,)):
            raise NotImplementedError(f"`{self.__name__}.{name}` is not supported by CuPy")
        method = getattr(self.ufunc, name)
        return lambda *args, **kwargs: wrap(method(*map(unwrap, args), **{key: unwrap(value) for key, value in kwargs.items()}))


def _only(name, given, allowed):
    unknown = [key for key in given if key not in allowed]
    if unknown and not any(key.startswith("**") for key in allowed):
        raise TypeError(f"{name}() of CuPy got an unexpected keyword argument {unknown[0]!r}")


def _function(name, function, parameters):
    most = np.inf if any(p.startswith("*") for p in parameters) else len(parameters)
    short = name.split(".")[-1]

    def call(*args, **kwargs):
        _only(name, kwargs, parameters)
        if len(args) > most:
            raise TypeError(f"{name}() of CuPy takes {most} positional arguments but {len(args)} were given")
        if args and isinstance(args[0], list) and short not in FROM_HOST | TAKES_LIST:
            raise TypeError(f"{name}() of CuPy takes no list as its first argument")
        kwargs.pop("blocking", None)
        host = short in FROM_HOST
        if host and args and isinstance(args[0], np.ndarray):
            args = (np.array(args[0]), *args[1:])  # memory of the host is never shared
        result = function(*(unwrap(a, host) for a in args), **{key: unwrap(value, host) for key, value in kwargs.items()})
        if args and isinstance(args[0], ndarray) and result is args[0]._a:
            return args[0]
        return wrap(poisoned(result) if short in ("empty", "empty_like") else result)

    call.__name__ = short
    return call


def _cholesky(a):
    matrix = unwrap(a)
    try:
        return wrap(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        if _ERRSTATE["linalg"] == "raise":
            raise
        return wrap(np.tril(matrix))  # what cuSOLVER leaves behind is no factor either


def _asnumpy(a, stream=None, order="C", out=None, blocking=True):
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def _array_module(*args):
    return CUPY if any(isinstance(a, ndarray) for a in args) else np


def _cupy() -> ModuleType:
    cupy, linalg = ModuleType("cupy"), ModuleType("cupy.linalg")
    for name, parameters in names().items():
        in_linalg = name.startswith("linalg.")
        short = name.removeprefix("linalg.")
        own = getattr(np.linalg if in_linalg else np, short, None)
        if own is None:
            continue  # NumPy older than the list
        value = own if parameters == ["value"] else UFunc(own) if parameters == ["ufunc"] else _function(name, own, parameters)
        setattr(linalg if in_linalg else cupy, short, value)
    linalg.cholesky = _cholesky
    cupy.linalg, cupy.ndarray, cupy.asnumpy, cupy.get_array_module = linalg, ndarray, _asnumpy, _array_module
    cupy.RawModule, cupy.RawKernel = kernels.RawModule, kernels.RawKernel
    cupy.get_default_memory_pool = lambda: POOL
    cupy.get_default_pinned_memory_pool = lambda: arrays.MemoryPool()
    cupy.__version__, cupy.__path__ = "14.0.0", []
    cupy.cuda = _cuda()
    return cupy


class CUDARuntimeError(RuntimeError):
    """As `cupy.cuda.runtime.CUDARuntimeError`."""


class Stream:
    """Everything is done at once, in order."""

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr = 0

    def synchronize(self):
        pass

    def use(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


Stream.null = Stream()


class Device(Stream):
    """The one device."""

    def __init__(self, device=0):
        if device != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id, self.compute_capability = 0, "90"

    @property
    def mem_info(self):
        return _free_and_total()

    @property
    def attributes(self):
        return {"MultiProcessorCount": 132}


def _free_and_total():
    total = POOL.limit or TOTAL_MEMORY
    return total - POOL.used, total


def _cuda() -> ModuleType:
    cuda = ModuleType("cupy.cuda")
    cuda.__path__ = []
    cuda.runtime, cuda.memory = ModuleType("cupy.cuda.runtime"), ModuleType("cupy.cuda.memory")
    runtime = cuda.runtime
    runtime.CUDARuntimeError = CUDARuntimeError
    runtime.getDeviceCount, runtime.getDevice = (lambda: 1), (lambda: 0)
    runtime.memGetInfo, runtime.deviceSynchronize = _free_and_total, (lambda: None)
    runtime.runtimeGetVersion, runtime.driverGetVersion = (lambda: 12090), (lambda: 12090)
    runtime.getDeviceProperties = lambda device: {
        "name": b"simulated",
        "totalGlobalMem": TOTAL_MEMORY,
        "multiProcessorCount": 132,
        "major": 9,
        "minor": 0,
        "sharedMemPerBlock": 49152,
        "sharedMemPerBlockOptin": 232448,
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
    }
    cuda.memory.OutOfMemoryError, cuda.memory.MemoryPool = arrays.OutOfMemoryError, arrays.MemoryPool
    cuda.Device, cuda.Stream, cuda.get_current_stream = Device, Stream, (lambda: Stream.null)
    cuda.is_available = lambda: True
    return cuda


_ERRSTATE = {"linalg": "ignore"}


@contextmanager
def _errstate(linalg=None, **other):
    old = dict(_ERRSTATE)
    _ERRSTATE["linalg"] = linalg or old["linalg"]
    try:
        yield
    finally:
        _ERRSTATE.update(old)


def _seterr(linalg=None, **other):
    old = dict(_ERRSTATE)
    _ERRSTATE["linalg"] = linalg or old["linalg"]
    return old


def _scatter_add(a, slices, value):
    np.add.at(unwrap(a), arrays.index(slices), unwrap(value))


def _solve_triangular(a, b, trans=0, lower=False, unit_diagonal=False, overwrite_b=False, check_finite=False):
    if not (isinstance(a, ndarray) and isinstance(b, ndarray)):
        raise TypeError("cupyx.scipy.linalg.solve_triangular takes arrays of the device only")
    with np.errstate(all="ignore"):
        x = scipy.linalg.solve_triangular(unwrap(a), unwrap(b), trans=trans, lower=lower, unit_diagonal=unit_diagonal, check_finite=False)
    return wrap(x)


def _erfc(x):
    if not isinstance(x, ndarray):
        raise TypeError("cupyx.scipy.special.erfc takes arrays of the device only")
    return wrap(scipy.special.erfc(unwrap(x)))


def _cupyx() -> ModuleType:
    cupyx, cupyx_scipy, linalg = ModuleType("cupyx"), ModuleType("cupyx.scipy"), ModuleType("cupyx.scipy.linalg")
    cupyx.__path__, cupyx_scipy.__path__ = [], []
    cupyx.errstate, cupyx.seterr, cupyx.scatter_add = _errstate, _seterr, _scatter_add
    cupyx.geterr = lambda: dict(_ERRSTATE)
    cupyx.scipy, cupyx_scipy.linalg = cupyx_scipy, linalg
    linalg.solve_triangular = _solve_triangular
    cupyx_scipy.special = ModuleType("cupyx.scipy.special")
    cupyx_scipy.special.erfc = _erfc
    return cupyx


CUPY, CUPYX = _cupy(), _cupyx()

#: What goes into `sys.modules` while the device is simulated.
MODULES = {
    "cupy": CUPY,
    "cupy.linalg": CUPY.linalg,
    "cupy.cuda": CUPY.cuda,
    "cupy.cuda.runtime": CUPY.cuda.runtime,
    "cupy.cuda.memory": CUPY.cuda.memory,
    "cupyx": CUPYX,
    "cupyx.scipy": CUPYX.scipy,
    "cupyx.scipy.linalg": CUPYX.scipy.linalg,
    "cupyx.scipy.special": CUPYX.scipy.special,
}
