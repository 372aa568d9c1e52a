"""NVRTC through ctypes: compiles CUDA C++ to machine code of a GPU without a driver."""

from __future__ import annotations

import ctypes
from pathlib import Path

import nvidia.cuda_nvrtc


def _library() -> ctypes.CDLL:
    folder = Path(nvidia.cuda_nvrtc.__path__[0])
    return ctypes.CDLL(str(next(iter(sorted(folder.glob("*/libnvrtc.so*")) or sorted(folder.glob("bin/nvrtc64*"))))))


def compiled(code: str, options: tuple[str, ...]) -> str:
    """The log of a successful compilation, warnings and ptxas' report of registers and spills included; errors raise with the log."""
    nvrtc, program = _library(), ctypes.c_void_p()
    _checked(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None))
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    size = ctypes.c_size_t()
    _checked(nvrtc, nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _checked(nvrtc, nvrtc.nvrtcGetProgramLog(program, log))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if failed:
        raise RuntimeError(f"NVRTC does not compile the kernels:\n{text}")
    return text


def _checked(nvrtc, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(code).decode()}")
