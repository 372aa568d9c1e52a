"""A simulated GPU for the tests: modules that behave as CuPy on the memory of NumPy, and CUDA C++ compiled for the CPU."""

from device.modules import MODULES

__all__ = ["MODULES"]
