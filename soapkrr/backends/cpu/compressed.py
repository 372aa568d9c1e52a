"""Jacobians of power spectra whose channels were contracted, c′[lm, q] = Σ_a c[lm, a] C[l, a, q].

Values and pull-back need nothing of their own: `soap.expand`, a matrix product per l, `soap.power_spectrum`, and back.
"""

from __future__ import annotations

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.soap_jacobian import displaced, strained


@jit
def jacobian(start, stop, pairs, basis, contraction, partners, c, X, norms, rows, out):
    """∂X_i/∂r_a as `soap.jacobian`, for contracted expansions ``c[i, lm, q]``."""
    displaced(start, stop, pairs, basis, contraction.shape[1], contraction, partners, c, X, norms, rows, out)


@jit
def strain_jacobian(start, stop, pairs, basis, contraction, partners, c, X, norms, out):
    """∂X_i/∂ε as `soap.strain_jacobian`, for contracted expansions ``c[i, lm, q]``."""
    strained(start, stop, pairs, basis, contraction.shape[1], contraction, partners, c, X, norms, out)
