"""What surrounds the charges: how many directions are periodic, the cell of three directions that is summed over, and what that adds.

A slab is summed as bulk with an empty gap, less the field of the dipoles of its images (Yeh and Berkowitz 1999, doi 10.1063/1.479595;
with a net charge: Ballenegger, Arnold and Cerdà 2009, doi 10.1063/1.3216473). What is left falls as exp(−2π gap/L), so the gap is as wide
as the accuracy asks for, whatever the vacuum of the cell is.
"""

from __future__ import annotations

from math import log, pi

import numpy as np

from soapkrr.errors import InputError

#: Net charges (e) of a cell up to which it is neutral.
NEUTRAL = 1e-4


def periodic_cell(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, accuracy: float) -> np.ndarray:
    """(3, 3) rows: the cell of a bulk; of a slab one with a gap of its own along its normal, as third vector."""
    if pbc.all():
        return cell
    a, b = cell[pbc]
    area = np.cross(a, b)
    normal = area / np.linalg.norm(area)
    heights = positions @ normal
    widest = max(np.linalg.norm(a), np.linalg.norm(b))
    gap = widest * max(1.0, -log(max(accuracy, 1e-14)) / (2 * pi) + 0.3)
    return np.array([a, b, normal * (heights.max() - heights.min() + gap)])


def slab_correction(positions, charges, cell) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Potentials (n,), gradients (n, 3) of them, energy and its strain derivative (3, 3), of unit strength, of images that are not there.

    E = 2π/V (M² − Q Σ q z² − Q² L²/12), heights z along the third vector of the cell from the middle of the slab, M = Σ q z.
    """
    length, volume = np.linalg.norm(cell[2]), abs(np.linalg.det(cell))
    normal = cell[2] / length
    z = positions @ normal
    z = z - 0.5 * (z.max() + z.min())
    net, moment, second = charges.sum(), charges @ z, charges @ z**2
    factor = 2 * pi / volume
    potentials = factor * (2 * moment * z - second - net * z**2 - net * length**2 / 6)
    gradients = factor * np.outer(2 * moment - 2 * net * z, normal)
    energy = factor * (moment**2 - net * second - net**2 * length**2 / 12)
    return potentials, gradients, energy, 2 * energy * np.outer(normal, normal) - energy * np.eye(3)


def background_potential(charges, alpha: float, volume: float) -> float:
    """Potential of the uniform background (and of what α cuts out of it) in a cell with a net charge, 1/Å times e."""
    return -pi * float(charges.sum()) / (alpha**2 * volume)


def check_boundary(pbc: np.ndarray, net: float, background: str | None) -> None:
    """Raise `InputError` for one periodic direction, and for a net charge in a periodic cell without a background."""
    if pbc.sum() == 1:
        raise InputError(
            "a structure that is periodic in one direction has no Coulomb sum here: make it periodic in two with a wide gap, or in none."
        )
    if background not in (None, "uniform"):
        raise InputError(f"`background` must be None or 'uniform', received {background!r}.")
    if pbc.any() and abs(net) > NEUTRAL and background is None:
        raise InputError(
            f"the cell has a net charge of {net:+.6g} e, of which periodic images have no finite energy: check the charges, or say "
            "`background`='uniform' for a uniform neutralising background."
        )
