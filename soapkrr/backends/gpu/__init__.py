"""Hot loops as CUDA kernels for CuPy arrays."""

from soapkrr.backends.gpu import acsf, acsf_jacobian, pair

__all__ = ["acsf", "acsf_jacobian", "pair"]
