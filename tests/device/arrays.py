"""`ndarray` of the simulated device: NumPy memory that is as strict as CuPy about what may be mixed with it."""

from __future__ import annotations

import operator
import weakref

import numpy as np


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""


class MemoryPool:
    """Counts the bytes of living arrays; `set_limit` makes allocations beyond it fail."""

    def __init__(self):
        self.limit, self.used, self.peak, self._known = 0, 0, 0, set()

    def own(self, array: np.ndarray) -> None:
        """Count the memory that ``array`` lives in, once."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        key, size = id(array), array.nbytes
        if key in self._known:
            return
        if self.limit and self.used + size > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {self.used:,} bytes).")
        self._known.add(key)
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(array, self._release, key, size)

    def _release(self, key, size):
        self._known.discard(key)
        self.used -= size

    def used_bytes(self):
        return self.used

    def total_bytes(self):
        return self.used

    def free_bytes(self):
        return 0

    def n_free_blocks(self):
        return 0

    def free_all_blocks(self, stream=None):
        pass

    def set_limit(self, size=None, fraction=None):
        self.limit = int(TOTAL_MEMORY * fraction) if fraction is not None else size or 0

    def get_limit(self):
        return self.limit


POOL = MemoryPool()

#: Bytes that the simulated device claims to have.
TOTAL_MEMORY = 8 * 2**30

METHODS = """all any argmax argmin argpartition argsort astype choose clip compress conj conjugate copy cumprod cumsum diagonal dot flatten
max mean min nonzero partition prod ravel repeat reshape round sort squeeze std sum swapaxes take trace transpose var
view tolist item fill tobytes""".split()

BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift lt le gt ge eq ne".split()
UNARY = "neg pos abs invert".split()


def wrap(value):
    """Device arrays in place of what NumPy returned; a NumPy scalar becomes an array of no dimensions, as with CuPy."""
    if isinstance(value, np.ndarray):
        return ndarray._of(value)
    if isinstance(value, np.generic):
        return ndarray._of(np.asarray(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(wrap, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(wrap, value))
    return value


def unwrap(value, from_host: bool = False):
    """NumPy arrays behind device arrays; NumPy arrays themselves are refused unless ``from_host``."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray) and not from_host:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: CuPy takes no NumPy array here")
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(part, from_host) for part in value)
    return value


def operand(value):
    """One argument of an arithmetic operation: a device array or a scalar."""
    if isinstance(value, (ndarray, bool, int, float, complex, np.generic)):
        return unwrap(value)
    raise TypeError(f"Unsupported type {type(value)}")


def index(key):
    """What indexes an array; CuPy moves NumPy arrays and lists to the device here."""
    return tuple(unwrap(part, True) for part in key) if isinstance(key, tuple) else unwrap(key, True)


class Memory:
    """What ``array.data`` is."""

    def __init__(self, array: np.ndarray):
        self.ptr = array.ctypes.data if array.size else 0


class ndarray:
    """Wraps a NumPy array; converts to NumPy only by `get`, mixes with scalars and its own kind only."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None or strides is not None:
            raise TypeError("the simulated device makes no array from a pointer")
        self._a = poisoned(np.empty(shape, dtype, order))
        POOL.own(self._a)

    @classmethod
    def _of(cls, array: np.ndarray) -> ndarray:
        POOL.own(array)
        new = object.__new__(cls)
        new._a = array
        return new

    def get(self, stream=None, order="C", out=None, blocking=True):
        if out is None:
            return np.array(self._a, order=order)
        out[...] = self._a
        return out

    def set(self, arr, stream=None):
        if arr.shape != self.shape or arr.dtype != self.dtype:
            raise TypeError("`set` needs an array of the same shape and dtype")
        self._a[...] = arr

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        from device.modules import CUPY

        own = getattr(CUPY, ufunc.__name__, None)
        if own is None or method not in ("__call__", "outer", "at", "reduce", "accumulate", "reduceat"):
            return NotImplemented
        if isinstance(kwargs.get("out"), tuple):
            kwargs["out"] = kwargs["out"][0]
        return own(*inputs, **kwargs) if method == "__call__" else getattr(own, method)(*inputs, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        from device.modules import CUPY

        own = CUPY
        for name in [*func.__module__.split(".")[1:], func.__name__]:
            own = getattr(own, name, None)
        return NotImplemented if own is None else own(*args, **kwargs)

    def __getitem__(self, key):
        return wrap(self._a[index(key)])

    def __setitem__(self, key, value):
        if isinstance(value, (list, tuple)):
            raise TypeError(f"CuPy sets no elements from a {type(value).__name__}")
        self._a[index(key)] = unwrap(value)

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __len__(self):
        return len(self._a)

    def __bool__(self):
        return bool(self._a)

    def __int__(self):
        return int(self._a)

    def __float__(self):
        return float(self._a)

    def __complex__(self):
        return complex(self._a)

    def __repr__(self):
        return repr(self._a)

    def __format__(self, spec):
        return format(self._a.item() if self.ndim == 0 else self._a, spec)

    def __divmod__(self, other):
        return wrap(divmod(self._a, operand(other)))

    def __deepcopy__(self, memo):
        return wrap(self._a.copy())

    def __setattr__(self, name, value):
        if name == "shape":
            self._a = self._a.reshape(value)
        elif name == "_a":
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r} that can be set")

    @property
    def data(self):
        return Memory(self._a)

    @property
    def device(self):
        from device.modules import Device

        return Device(0)

    @property
    def base(self):
        return None if self._a.base is None else wrap(self._a.base)


def poisoned(array: np.ndarray) -> np.ndarray:
    """Fill new memory with what no test mistakes for a result."""
    kind = array.dtype.kind
    array.fill(np.nan if kind in "fc" else True if kind == "b" else np.iinfo(array.dtype).max)
    return array


def _method(name):
    def call(self, *args, **kwargs):
        result = getattr(self._a, name)(*map(unwrap, args), **{key: unwrap(value) for key, value in kwargs.items()})
        return result if name in ("tolist", "item", "tobytes") else wrap(result)

    return call


def _binary(name, reflected=False):
    function = getattr(operator, f"__{name}__")

    def call(self, other):
        a, b = self._a, operand(other)
        return wrap(function(b, a) if reflected else function(a, b))

    return call


def _in_place(name):
    function = getattr(operator, f"__i{name}__")

    def call(self, other):
        self._a = function(self._a, operand(other)) if self.ndim else self._of_scalar(function, operand(other))
        return self

    return call


def _of_scalar(self, function, other):
    self._a[...] = function(self._a.copy(), other)
    return self._a


ndarray._of_scalar = _of_scalar
for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in BINARY:
    setattr(ndarray, f"__{_name}__", _binary(_name))
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(ndarray, f"__r{_name}__", _binary(_name, reflected=True))
        setattr(ndarray, f"__i{_name}__", _in_place(_name))
for _name in UNARY:
    setattr(ndarray, f"__{_name}__", lambda self, name=_name: wrap(getattr(operator, name)(self._a)))
for _name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags"):
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._a, name)))
for _name in ("T", "real", "imag", "mT"):
    setattr(ndarray, _name, property(lambda self, name=_name: wrap(getattr(self._a, name))))
