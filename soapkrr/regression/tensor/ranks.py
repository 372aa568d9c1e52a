"""Cartesian tensors as orthonormal sums of spherical ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr.errors import InputError

#: Components of real harmonics of degree 1, m = −1, 0, 1, in terms of x, y, z.
VECTOR = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def _matrix_parts() -> dict[int, np.ndarray]:
    """{λ: (2λ+1, 9)} of a 3 × 3 matrix: trace, antisymmetric part as an axial vector, symmetric traceless part; rows orthonormal."""

    def symmetric(a, b):
        M = np.zeros((3, 3))
        M[a, b] = M[b, a] = 1.0
        return M / np.linalg.norm(M)

    x, y, z = range(3)
    levi = np.zeros((3, 3, 3))
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        levi[a, b, c], levi[a, c, b] = 1.0, -1.0
    axial = np.einsum("ma,abc->mbc", VECTOR, levi) / np.sqrt(2)
    zz, xx = np.diag([-1.0, -1.0, 2.0]) / np.sqrt(6), np.diag([1.0, -1.0, 0.0]) / np.sqrt(2)
    second = [symmetric(x, y), symmetric(y, z), zz, symmetric(x, z), xx]
    return {0: np.eye(3).reshape(1, 9) / np.sqrt(3), 1: axial.reshape(3, 9), 2: np.reshape(second, (5, 9))}


@dataclass(frozen=True)
class Rank:
    """What a tensor is made of.

    Attributes
    ----------
    shape : of its Cartesian components.  parts : ((λ, σ), (2λ+1, n_components)) rows of each spherical part, orthonormal.
    symmetric : whether a matrix must be symmetric.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[tuple[int, int], np.ndarray], ...]
    symmetric: bool = False

    @property
    def n_components(self) -> int:
        """Cartesian components."""
        return int(np.prod(self.shape))


def _ranks() -> dict[str, Rank]:
    of = _matrix_parts()
    polarisability = Rank((3, 3), (((0, 1), of[0]), ((2, 1), of[2])), symmetric=True)
    return {
        "scalar": Rank((), (((0, 1), np.eye(1)),)),
        "pseudoscalar": Rank((), (((0, -1), np.eye(1)),)),
        "dipole": Rank((3,), (((1, 1), VECTOR),)),
        "pseudovector": Rank((3,), (((1, -1), VECTOR),)),
        "polarisability": polarisability,
        "born": Rank((3, 3), (((0, 1), of[0]), ((1, -1), of[1]), ((2, 1), of[2]))),
    }


#: Tensors by name.
RANKS = _ranks()

#: The largest degree of spherical tensors that are given by their own components.
MOST = 6


def as_rank(rank: str | Sequence[int]) -> Rank:
    """A rank by its name, or of (λ, σ): the 2λ+1 components of real spherical harmonics themselves."""
    if isinstance(rank, str) and rank in RANKS:
        return RANKS[rank]
    pair = () if isinstance(rank, str) else tuple(rank) if isinstance(rank, (list, tuple)) else ()
    if len(pair) == 2 and pair[0] in range(MOST + 1) and pair[1] in (1, -1):
        return Rank((2 * pair[0] + 1,), ((pair, np.eye(2 * pair[0] + 1)),))
    raise InputError(f"`rank` must be one of {sorted(RANKS)} or (λ, σ) with λ ≤ {MOST} and σ = 1 or -1, received {rank!r}.")
