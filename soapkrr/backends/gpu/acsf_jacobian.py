"""Jacobians of the symmetry functions on a GPU, by displaced atom and by strain, one block of threads per row: as `cpu.acsf_jacobian`."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.gpu.acsf import Kernel, run

MOVED_CENTRE = Kernel("acsf_jacobian", "moved_centre", n_along=3, n_sums=3)
MOVED_NEIGHBOUR = Kernel("acsf_jacobian", "moved_neighbour", n_along=3, n_sums=3)
STRAINED = Kernel("acsf_jacobian", "strained", n_along=6, n_sums=6)


def jacobian(start, stop, pairs, fun, rows, out):
    """∂X_i/∂r_a grouped by displaced atom; rows as in `Descriptor.jacobian`."""
    n_pairs = len(rows) - (stop - start)
    run(MOVED_CENTRE, stop - start, pairs, fun, out.shape[-1], np.int64(start), rows[n_pairs:], out)
    run(MOVED_NEIGHBOUR, n_pairs, pairs, fun, out.shape[-1], np.int64(start), np.int64(stop), rows, out)


def strain_jacobian(start, stop, pairs, fun, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``."""
    run(STRAINED, stop - start, pairs, fun, out.shape[-1], np.int64(start), out)
