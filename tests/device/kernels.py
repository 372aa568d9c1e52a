"""CUDA C++ kernels compiled for the CPU by g++ and run thread by thread; see shim.h for how barriers are kept honest."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from device.arrays import ndarray

#: C type: (ctypes type of a scalar, NumPy dtype).
TYPES = {
    "int": (ctypes.c_int, np.int32),
    "unsigned int": (ctypes.c_uint, np.uint32),
    "unsigned": (ctypes.c_uint, np.uint32),
    "long long": (ctypes.c_longlong, np.int64),
    "unsigned long long": (ctypes.c_ulonglong, np.uint64),
    "double": (ctypes.c_double, np.float64),
    "float": (ctypes.c_float, np.float32),
    "bool": (ctypes.c_bool, np.bool_),
}

#: Bytes of shared memory that a launch may ask for without and with `max_dynamic_shared_size_bytes`.
SHARED, SHARED_OPT_IN = 48 * 1024, 227 * 1024

_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)'
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+((?:unsigned\s+)?(?:long\s+long|\w+))\s+(\w+)\s*\[\s*\]\s*;")
_BUILDS = tempfile.TemporaryDirectory(prefix="kernels-")


def parameters(code: str) -> dict[str, list[tuple[str, bool, bool]]]:
    """{kernel: [(C type, whether a pointer, whether const)]} of a source."""
    bare = re.sub(r"//[^\n]*|/\*.*?\*/", " ", code, flags=re.S)
    found = {}
    for name, inside in _KERNEL.findall(bare):
        kinds = []
        for part in filter(None, (p.strip() for p in inside.split(","))):
            words = re.sub(r"\b(const|__restrict__)\b", " ", part.replace("*", " * ")).split()
            kinds.append((" ".join(w for w in words[:-1] if w != "*"), "*" in words, "const" in part))
        found[name] = kinds
    return found


def _host_source(code: str) -> str:
    """The source with launchers that ctypes can call."""
    code = _DYNAMIC.sub(r"\1* \2 = (\1*)device::shared_memory;", code)
    launchers = []
    for name, kinds in parameters(code).items():
        formal = ", ".join(f"{kind}{'*' if pointer else ''} a{k}" for k, (kind, pointer, _) in enumerate(kinds))
        actual = ", ".join(f"a{k}" for k in range(len(kinds)))
        launchers.append(
            f'extern "C" const char* launch_{name}(const unsigned* geometry, unsigned long shared{", " if formal else ""}{formal}) '
            f"{{ return device::run(geometry, shared, [&] {{ {name}({actual}); }}); }}"
        )
    return "\n".join(['#include "shim.h"', "#line 1", code, *launchers])


def compiled(code: str, options: tuple[str, ...]) -> ctypes.PyDLL:
    """The shared library of a source, built once per session of tests."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("the tests of the CUDA kernels need a C++ compiler: install g++ (or clang++)")
    if any("fast" in option for option in options):
        raise ValueError(f"{options}: fast math is not wanted")
    defines = [option for option in options if option.startswith("-D")]
    source, here = _host_source(code), Path(__file__).parent
    key = hashlib.sha256("\0".join([source, (here / "shim.h").read_text(), *defines]).encode()).hexdigest()[:24]
    library, folder = Path(_BUILDS.name) / f"{key}.so", Path(_BUILDS.name)
    if not library.exists():
        (folder / f"{key}.cpp").write_text(source)
        flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-ffp-contract=off", f"-I{here}", *defines]
        done = subprocess.run(
            [compiler, *flags, str(folder / f"{key}.cpp"), "-o", str(library)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile for the CPU:\n{done.stderr[:4000]}")
    return ctypes.PyDLL(str(library))


def _argument(name: str, k: int, value, kind: str, pointer: bool):
    """The array, or what ctypes passes for a scalar, once the type is what the kernel expects."""
    where = f"argument {k} of kernel {name}"
    if kind not in TYPES:
        raise TypeError(f"{where}: the simulator knows no type {kind!r}")
    scalar, dtype = TYPES[kind]
    if pointer:
        if not isinstance(value, ndarray):
            raise TypeError(f"{where} must be an array of the device, received {type(value).__name__}")
        if value.dtype != dtype:
            raise TypeError(f"{where} is {kind}*, received an array of {value.dtype}")
        if not value.flags.c_contiguous:
            raise TypeError(f"{where}: the array is not contiguous (shape {value.shape}, strides {value.strides})")
        return value
    if isinstance(value, (bool, int, float)):
        value = {bool: np.bool_, int: np.int64, float: np.float64}[type(value)](value)
    if not isinstance(value, np.generic) or value.dtype != dtype:
        raise TypeError(f"{where} is {kind}, received {type(value).__name__} ({value!r}): pass np.{np.dtype(dtype).name}")
    return scalar(value.item())


class Fenced:
    """A copy of an array between two strips of NaN, which show writes beyond its ends; what is read there is no number either."""

    MARGIN = 256

    def __init__(self, array: ndarray):
        self.bytes = np.full(array.nbytes + 2 * self.MARGIN, 0xFF, dtype=np.uint8)
        self.inside = self.bytes[self.MARGIN : self.MARGIN + array.nbytes]
        self.inside[:] = array._a.reshape(-1).view(np.uint8)
        self.pointer = ctypes.c_void_p(self.inside.ctypes.data)

    def intact(self) -> bool:
        return bool((self.bytes[: self.MARGIN] == 0xFF).all() and (self.bytes[-self.MARGIN :] == 0xFF).all())

    def put_back(self, array: ndarray) -> None:
        array._a[...] = self.inside.view(array.dtype).reshape(array.shape)


class Function:
    """One kernel; call as f(grid, block, args, shared_mem=0)."""

    def __init__(self, library, name, kinds):
        self.name, self.kinds, self.max_dynamic_shared_size_bytes = name, kinds, 0
        self.launch = getattr(library, f"launch_{name}")
        self.launch.restype = ctypes.c_char_p

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None, enable_cooperative_groups=False):
        grid, block = (tuple(int(n) for n in size) + (1,) * (3 - len(size)) for size in (grid, block))
        if min(grid + block) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535 or np.prod(block) > 1024 or block[2] > 64:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: invalid argument (kernel {self.name}, grid {grid}, block {block})")
        if shared_mem > max(SHARED, min(self.max_dynamic_shared_size_bytes, SHARED_OPT_IN)):
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: kernel {self.name} asks for {shared_mem} bytes of shared memory")
        if len(args) != len(self.kinds):
            raise TypeError(f"kernel {self.name} takes {len(self.kinds)} arguments, received {len(args)}")
        checked = [_argument(self.name, k, value, *kind[:2]) for k, (value, kind) in enumerate(zip(args, self.kinds, strict=True))]
        fenced = {k: Fenced(value) for k, value in enumerate(checked) if isinstance(value, ndarray)}
        passed = [fenced[k].pointer if k in fenced else value for k, value in enumerate(checked)]
        problem = self.launch((ctypes.c_uint * 6)(*grid, *block), ctypes.c_ulong(int(shared_mem)), *passed)
        if problem:
            raise RuntimeError(f"kernel {self.name}: {problem.decode()}")
        for k, copy in fenced.items():
            if not copy.intact():
                raise RuntimeError(f"kernel {self.name} writes outside of its argument {k}, an array of shape {args[k].shape}")
            if not self.kinds[k][2]:
                copy.put_back(args[k])


class RawModule:
    """As `cupy.RawModule` of CUDA C++ source with ``extern "C"`` kernels."""

    def __init__(self, code=None, *, options=(), backend="nvrtc", **other):
        if other or backend != "nvrtc":
            raise TypeError(f"the simulated device knows no {sorted(other) or backend}")
        self.code, self.options = code, tuple(options)

    def compile(self, log_stream=None):
        compiled(self.code, self.options)

    def get_function(self, name):
        known = parameters(self.code)
        if name not in known:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found ({name}; kernels: {sorted(known)})")
        return Function(compiled(self.code, self.options), name, known[name])


def RawKernel(code, name, options=(), backend="nvrtc", **other):
    """As `cupy.RawKernel`."""
    return RawModule(code=code, options=options, backend=backend, **other).get_function(name)
