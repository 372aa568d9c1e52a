"""Density expansion and power spectrum on a GPU, one block of threads per atom: as `cpu.soap`."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import cupy
import numpy as np

from soapkrr.backends.gpu.compile import SHARED, launch

#: Threads of a block, and most neighbours whose radial functions and harmonics are held in shared memory at once.
THREADS, CHUNK = 128, 16

#: Bytes of shared memory that a block takes for neighbours unless one alone needs more: ten blocks then share a multiprocessor.
TARGET = 20 * 1024


class Features(NamedTuple):
    """Features of one l: ``a``, ``b`` (n_pairs,) the two channels of each; ``place`` (n_channels, n_channels) which feature, or −1."""

    a: cupy.ndarray
    b: cupy.ndarray
    place: cupy.ndarray


_FEATURES: dict[int, Features] = {}


def features(partners, n_pairs: int) -> Features:
    """Tables of the channels that are multiplied, made once for each array ``partners`` (see `cpu.power_spectrum`)."""
    key = id(partners)
    if key not in _FEATURES:
        counts = partners[:, 1] - partners[:, 0]
        first = cupy.cumsum(counts) - counts
        g = cupy.arange(n_pairs)
        a = cupy.searchsorted(first, g, side="right") - 1
        b = partners[a, 0] + g - first[a]
        place = cupy.full((len(partners), len(partners)), -1, dtype=np.int32)
        place[a, b] = g.astype(np.int32)
        place[b, a] = g.astype(np.int32)
        _FEATURES[key] = Features(a.astype(np.int32), b.astype(np.int32), place)
        weakref.finalize(partners, _FEATURES.pop, key, None)
    return _FEATURES[key]


def _pair_arguments(start, pairs, basis):
    """What kernels that visit neighbours take first, and the scalars of the basis."""
    arrays = np.int64(start), pairs.offsets, pairs.neighbours, pairs.vectors, pairs.kinds
    return (*arrays, basis.table, np.int32(basis.table.shape[0]), basis.norm, float(basis.inv_r_cut)), _sizes(basis.l_max, basis.n_max)


def _sizes(*numbers):
    return tuple(map(np.int32, numbers))


def _chunk(basis, n_radial: int, n_angular: int) -> tuple[int, int]:
    """Neighbours held at once with so many radial and angular tables each, and the bytes that they take."""
    n_l = basis.l_max + 1
    bytes_each = 8 * (n_radial * n_l * basis.n_max + n_angular * n_l**2) + 40
    chunk = min(CHUNK, max(1, TARGET // bytes_each))
    return chunk, chunk * bytes_each


def expand(start, stop, pairs, basis, out):
    """Density expansion of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); the central atom is included."""
    arrays, sizes = _pair_arguments(start, pairs, basis)
    chunk, shared = _chunk(basis, 1, 1)
    launch("soap", "expand", stop - start, THREADS, *arrays, *sizes, *_sizes(out.shape[2], chunk), out, shared=shared)


def expand_moved(start, stop, pairs, basis, n_channels: int, n_directions: int):
    """(stop − start, n_directions, lm, a) ∂c_i/∂r_i (3 directions) or ∂c_i/∂ε (6) per Å, of atoms ``start:stop``."""
    out = cupy.empty((stop - start, n_directions, (basis.l_max + 1) ** 2, n_channels))
    arrays, sizes = _pair_arguments(start, pairs, basis)
    chunk, shared = _chunk(basis, 2, 2)
    numbers = _sizes(n_channels, n_directions, chunk)
    launch("soap", "expand_moved", n_directions * (stop - start), THREADS, *arrays, *sizes, *numbers, out, shared=shared)
    return out


def power_spectrum(c, partners, weight, l_max, X, norms):
    """Normalised power spectra of expansions ``c[i, lm, a]`` into ``X[i, f]``; their norms into ``norms[i]``."""
    n_pairs = X.shape[1] // (l_max + 1)
    a, b, _ = features(partners, n_pairs)
    launch("soap", "power_spectrum", len(c), THREADS, c, a, b, weight, *_sizes(l_max, c.shape[2], n_pairs), X, norms)


def power_spectrum_pullback(G, X, norms, c, partners, weight, l_max, H):
    """∂E/∂c in ``H[i, lm, a]`` from G = ∂E/∂X; the normalisation is differentiated too; arguments as of `power_spectrum`."""
    n_pairs, n_channels = X.shape[1] // (l_max + 1), c.shape[2]
    place = features(partners, n_pairs).place
    tile = max(1, min((l_max + 1) * n_channels, (SHARED // 2) // (8 * n_channels)))
    numbers = _sizes(l_max, n_channels, n_pairs, tile)
    launch("soap", "power_spectrum_pullback", len(c), THREADS, G, X, norms, c, place, weight, *numbers, H, shared=8 * tile * n_channels)


def expansion_pullback(start, stop, pairs, basis, H, out):
    """∂E/∂r_ij (per Å) of the pairs of atoms ``start:stop`` into ``out[p]``, from H[i - start] = ∂E/∂c."""
    arrays, sizes = _pair_arguments(start, pairs, basis)
    chunk, shared = _chunk(basis, 2, 4)
    launch("soap", "expansion_pullback", stop - start, THREADS, *arrays, *sizes, *_sizes(H.shape[2], chunk), H, out, shared=shared)
