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
    """``a``, ``b``, ``l`` (n_features,) the two channels and the degree of each; ``starts`` (l_max + 2,) the first of each degree;
    ``place`` (l_max + 1, n_channels, n_channels) which feature, or −1.
    """

    a: cupy.ndarray
    b: cupy.ndarray
    l: cupy.ndarray
    starts: cupy.ndarray
    place: cupy.ndarray


_FEATURES: dict[int, Features] = {}


def features(partners, n_features: int) -> Features:
    """Tables of the channels that are multiplied, made once for each array ``partners`` (see `cpu.power_spectrum`)."""
    key = id(partners)
    if key not in _FEATURES:
        n_l, n_channels = partners.shape[:2]
        counts = (partners[..., 1] - partners[..., 0]).ravel()
        first = cupy.cumsum(counts) - counts
        g = cupy.arange(n_features)
        row = cupy.searchsorted(first, g, side="right") - 1
        l, a = row // n_channels, row % n_channels
        b = partners[l, a, 0] + g - first[row]
        place = cupy.full((n_l, n_channels, n_channels), -1, dtype=np.int32)
        place[l, a, b] = g.astype(np.int32)
        place[l, b, a] = g.astype(np.int32)
        starts = cupy.searchsorted(l, cupy.arange(n_l + 1))
        _FEATURES[key] = Features(*(x.astype(np.int32) for x in (a, b, l, starts)), place)
        weakref.finalize(partners, _FEATURES.pop, key, None)
    return _FEATURES[key]


def _pair_arguments(start, pairs, basis):
    """What kernels that visit neighbours take first, and the scalars of the basis."""
    arrays = np.int64(start), pairs.offsets, pairs.neighbours, pairs.vectors, pairs.kinds
    tables = basis.table, *_sizes(basis.table.shape[1], basis.table.shape[0]), basis.windows, basis.norm
    return (*arrays, *tables, float(basis.inv_r_cut)), _sizes(basis.l_max, basis.n_max)


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
    a, b, l, *_ = features(partners, X.shape[1])
    launch("soap", "power_spectrum", len(c), THREADS, c, a, b, l, weight, *_sizes(l_max, c.shape[2], X.shape[1]), X, norms)


def power_spectrum_pullback(G, X, norms, c, partners, weight, l_max, H):
    """∂E/∂c in ``H[i, lm, a]`` from G = ∂E/∂X; the normalisation is differentiated too; arguments as of `power_spectrum`."""
    n_channels = c.shape[2]
    place = features(partners, X.shape[1]).place
    tile = max(1, min((l_max + 1) * n_channels, (SHARED // 2) // (8 * n_channels)))
    numbers = _sizes(l_max, n_channels, X.shape[1], tile)
    launch("soap", "power_spectrum_pullback", len(c), THREADS, G, X, norms, c, place, weight, *numbers, H, shared=8 * tile * n_channels)


def expansion_pullback(start, stop, pairs, basis, H, out):
    """∂E/∂r_ij (per Å) of the pairs of atoms ``start:stop`` into ``out[p]``, from H[i - start] = ∂E/∂c."""
    arrays, sizes = _pair_arguments(start, pairs, basis)
    chunk, shared = _chunk(basis, 2, 4)
    launch("soap", "expansion_pullback", stop - start, THREADS, *arrays, *sizes, *_sizes(H.shape[2], chunk), H, out, shared=shared)
