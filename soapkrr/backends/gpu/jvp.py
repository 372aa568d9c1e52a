"""Derivatives of density expansions and power spectra along one direction of the pair vectors, on a GPU: as `cpu.jvp`."""

from __future__ import annotations

from soapkrr.backends.gpu.compile import launch
from soapkrr.backends.gpu.soap import THREADS, _chunk, _pair_arguments, _sizes, features


def expansion(start, stop, pairs, basis, direction, out):
    """Σ_p ∂c_i/∂r_p · direction[p] of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); direction (n_pairs, 3)."""
    arrays, sizes = _pair_arguments(start, pairs, basis)
    chunk, shared = _chunk(basis, 2, 2)
    numbers = _sizes(out.shape[2], chunk)
    # A vector more for each neighbour.
    launch("soap", "expand_along", stop - start, THREADS, *arrays, *sizes, *numbers, direction, out, shared=shared + 32 * chunk)


def power_spectrum(c, dc, X, norms, partners, weight, l_max, out):
    """Derivative of the normalised spectra X of ``c[i, lm, a]`` along ``dc`` into ``out[i, f]``; other arguments as of `gpu.soap`."""
    a, b, l, *_ = features(partners, X.shape[1])
    numbers = _sizes(l_max, c.shape[2], X.shape[1])
    launch("soap", "power_spectrum_along", len(c), THREADS, c, dc, X, norms, a, b, l, weight, *numbers, out)
