"""Every CUDA source of the package compiles for the GPUs that it is meant for, without warnings and without spilled registers."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from device.nvrtc import compiled

import soapkrr.backends

FOLDER = Path(soapkrr.backends.__file__).parent / "gpu"
SOURCES = sorted(path.stem for path in FOLDER.glob("*.cu"))


def test_sources_are_found():
    assert SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_source_compiles_for_sm_90_within_registers(name, cuda):
    module = import_module("soapkrr.backends.gpu.compile")
    log = compiled(module.source(name), (*module.OPTIONS, "--gpu-architecture=sm_90", "--ptxas-options=-v"))
    assert "warning" not in log, log
    assert module.source(name).isascii()  # CuPy writes sources in the encoding of the user's locale
    assert log.count("Compiling entry function") == module.source(name).count("__global__"), log
    functions = re.findall(r"Function properties for (\w+)\s+ptxas\s+\.\s+(\d+) bytes stack frame, (\d+) bytes spill stores", log)
    assert len(functions) == log.count("Function properties"), log
    for kernel, stack, spilled in functions:
        assert (stack, spilled) == ("0", "0"), f"{kernel} keeps {stack} bytes of each thread in memory, {spilled} of them spilled:\n{log}"
