"""Jacobians of the symmetry functions on a GPU, by displaced atom and by strain, one block of threads per row: as `cpu.acsf_jacobian`."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.gpu.acsf import run


def jacobian(start, stop, pairs, fun, rows, out):
    """∂X_i/∂r_a grouped by displaced atom; rows as in `Descriptor.jacobian`."""
    n_pairs = len(rows) - (stop - start)
    same = dict(pairs=pairs, fun=fun, n_features=out.shape[-1], n_along=3, n_sums=3)
    run("acsf_jacobian", "moved_centre", stop - start, args=(np.int64(start), rows[n_pairs:], out), **same)
    run("acsf_jacobian", "moved_neighbour", n_pairs, args=(np.int64(start), np.int64(stop), rows, out), **same)


def strain_jacobian(start, stop, pairs, fun, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``."""
    run("acsf_jacobian", "strained", stop - start, pairs, fun, out.shape[-1], (np.int64(start), out), n_along=6, n_sums=6)
