"""The few hot loops; only modules in here know numba or CUDA."""
