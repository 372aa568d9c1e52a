"""Density expansion, power spectrum and Jacobians on a GPU, one block of threads per atom, pair or row: as `cpu.soap`."""

from __future__ import annotations

import weakref
from functools import cache
from typing import NamedTuple

import cupy
import numpy as np

from soapkrr.backends.gpu.compile import SHARED, launch

#: Threads of a block, and most neighbours whose radial functions and harmonics are held in shared memory at once.
THREADS, CHUNK = 128, 16

#: Bytes of shared memory that a block takes for neighbours unless one alone needs more: ten blocks then share a multiprocessor.
TARGET = 20 * 1024

#: Bytes of shared memory left to static arrays.
STATIC = 512


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


def jacobian(start, stop, pairs, basis, c, X, norms, rows, out):
    """∂X_i/∂r_a for every centre i that atom a (of ``start:stop``) moves, itself included; rows as in `cpu.soap.jacobian`."""
    partners = _triangle(c.shape[2])
    pair_rows(start, stop, pairs, basis, None, partners, c, X, norms, rows, out)
    moved = expand_moved(start, stop, pairs, basis, c.shape[2], 3)
    moved_rows(start, moved, partners, basis, c, X, norms, rows[len(rows) - (stop - start) :], out)


def strain_jacobian(start, stop, pairs, basis, c, X, norms, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``: Σ_j r_ij,a ∂X_i/∂r_ij,b."""
    moved = expand_moved(start, stop, pairs, basis, c.shape[2], 6)
    moved_rows(start, moved, _triangle(c.shape[2]), basis, c, X, norms, cupy.arange(stop - start), out)


def _triangle(n_channels: int):
    """Partners of the full power spectrum: each channel with itself and all that follow."""
    return _triangle_on(n_channels, cupy.cuda.runtime.getDevice())


@cache
def _triangle_on(n_channels: int, device: int):
    first = cupy.arange(n_channels)
    return cupy.stack([first, cupy.full(n_channels, n_channels)], axis=1)


def pair_rows(start, stop, pairs, basis, contraction, partners, c, X, norms, rows, out):
    """The rows of `jacobian` that belong to pairs; ``contraction`` (l_max + 1, n_channels, n_mixed) or None."""
    l_max, n_max = basis.l_max, basis.n_max
    n_mixed, n_pairs = c.shape[2], X.shape[1] // (l_max + 1)
    n_channels = n_mixed if contraction is None else contraction.shape[1]
    a, b, _ = features(partners, n_pairs)
    bytes_each = 8 * (4 * (2 * l_max + 1) + 2 * n_max + 6 * n_mixed)
    tile = min(l_max + 1, max(1, (SHARED - STATIC) // bytes_each))
    arrays = np.int64(start), np.int64(stop), pairs.offsets, pairs.neighbours, pairs.vectors, pairs.kinds, basis.table
    numbers = float(basis.inv_r_cut), *_sizes(l_max, n_max, n_channels)
    mixing = (c if contraction is None else contraction), *_sizes(contraction is not None, n_mixed)
    launch(
        *("jacobian", "pair_rows", len(rows) - (stop - start), THREADS),
        *(*arrays, np.int32(len(basis.table)), basis.norm, basis.weight, *numbers, *mixing),
        *(a, b, *_sizes(n_pairs, tile), c, X, norms, rows, out),
        shared=tile * bytes_each,
    )


def moved_rows(start, moved, partners, basis, c, X, norms, rows, out):
    """Rows of X along ``moved`` (n, n_directions, lm, n_mixed), of atoms from ``start``, into ``out[rows[i]]``."""
    n, n_directions, _, n_mixed = moved.shape
    n_pairs = X.shape[1] // (basis.l_max + 1)
    a, b, _ = features(partners, n_pairs)
    launch(
        *("jacobian", "moved_rows", n * n_directions, THREADS, np.int64(start), np.int32(n_directions), moved, c, X, norms, basis.weight),
        *(*_sizes(basis.l_max, n_mixed), a, b, np.int32(n_pairs), rows, out),
    )
