"""Hot loops as CUDA kernels for CuPy arrays: one block of threads per atom, pair or row; sums in a fixed order, so that results repeat."""

from soapkrr.backends.gpu import acsf, acsf_jacobian, dense, jvp, neighbours, pair, regression, soap, soap_jacobian

__all__ = ["acsf", "acsf_jacobian", "dense", "jvp", "neighbours", "pair", "regression", "soap", "soap_jacobian"]

#: Atoms whose energies and gradients are made at once: enough blocks to fill any GPU many times over (132 multiprocessors hold about
#: 2,000 blocks), so that launches cost little; (block × n_sparse) products of 1,000 sparse points take 64 MB.
EVALUATED = 8192

#: Never: one block after the other is worked on.
SHARED = 2**62

#: Training environments of an exact process that meet such a block at once: two products of 134 MB.
POINTS = 2048

#: Displaced atoms whose Jacobians are made at once: 256 atoms with 30 neighbours are 8,000 blocks of threads, and 24,000 rows are enough
#: for matrix products at full speed; rows of 252 features take 48 MB.
DISPLACED = 256

#: Atoms whose design rows are made and absorbed at once.
GROUP = 4096

#: Rows of a large matrix that are multiplied at once.
ROWS = 65536
