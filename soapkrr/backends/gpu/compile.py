"""How the kernels of this folder are compiled: CUDA C++ by NVRTC, once per source, device and process; CuPy keeps the result on disk."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import cupy

#: Options of NVRTC; the target is the device at hand.
OPTIONS = ("--std=c++17",)

#: Bytes of shared memory that any block may have without asking.
SHARED = 48 * 1024


def source(name: str) -> str:
    """CUDA C++ of one module: what all share, then its own, with the headers of this folder that it includes."""
    return _text("common.cuh") + _text(f"{name}.cu")


def _text(file: str) -> str:
    text = (Path(__file__).parent / file).read_text()
    return re.sub(r'^#include "(\w+\.cuh)"$', lambda match: _text(match[1]), text, flags=re.MULTILINE)


@cache
def _module(name: str, device: int):
    return cupy.RawModule(code=source(name), options=OPTIONS)


@cache
def _kernel(module: str, name: str, device: int):
    return _module(module, device).get_function(name)


def launch(module: str, name: str, grid: int, block: int, *args, shared: int = 0) -> None:
    """Run kernel ``name`` of ``module``.cu on ``grid`` blocks of ``block`` threads; nothing to do where there are no blocks.

    Scalars are passed as ``np.int32``, ``np.int64`` (also Python's int) or ``np.float64`` (also Python's float), as the kernel takes them.
    """
    if not all(arg.flags.c_contiguous for arg in args if isinstance(arg, cupy.ndarray)):
        raise ValueError(f"kernel {name} takes contiguous arrays only")
    if grid:
        kernel = _kernel(module, name, cupy.cuda.runtime.getDevice())
        if shared > SHARED:
            kernel.max_dynamic_shared_size_bytes = int(shared)
        kernel((int(grid),), (int(block),), args, shared_mem=int(shared))


def warps(n: int, most: int = 256) -> int:
    """Threads of a block that has work for n: whole warps, at most ``most``."""
    return min(-(-max(int(n), 1) // 32) * 32, most)
