"""Hot loops compiled by numba for NumPy arrays; serial, without the GIL: callers run them on blocks, one block per thread."""

from soapkrr.backends.cpu import acsf, acsf_jacobian, coulomb, dense, equivariant, jvp, neighbours, pair, regression, soap, soap_jacobian

__all__ = ["acsf", "acsf_jacobian", "coulomb", "dense", "equivariant", "jvp", "neighbours", "pair", "regression", "soap", "soap_jacobian"]

#: Atoms whose energies and gradients are made at once: their products with the sparse points stay in the cache.
EVALUATED = 128

#: Atoms of a prediction from which there are two blocks, so that two threads share them.
SHARED = 32

#: Training environments of an exact process that meet such a block at once.
POINTS = 512

#: Displaced atoms whose Jacobians are made at once: (n_neighbours·3·block) × n_sparse products stay in the cache.
DISPLACED = 8

#: Atoms whose design rows are made and absorbed at once.
GROUP = 256

#: Rows of a large matrix that one thread multiplies at once.
ROWS = 4096
