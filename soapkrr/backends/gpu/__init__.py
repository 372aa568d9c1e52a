"""Hot loops as CUDA kernels for CuPy arrays."""
