"""Operations of descriptors, their derivatives and design rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.projection import Wrapper
from soapkrr.descriptors.soap import SOAP
from soapkrr.planning.plan import Step
from soapkrr.planning.sizes import PAIR, Data, TermSize


def described_flops(terms: Sequence, sizes: Sequence[TermSize], atoms: float) -> float:
    """Operations for the features of so many atoms, of all terms."""
    return sum(value_flops(term.descriptor, atoms * t.neighbours, atoms) for term, t in zip(terms, sizes, strict=True))


def pair_traffic(sizes: Sequence[TermSize], atoms: float) -> float:
    """Bytes of the neighbour pairs of so many atoms, of all terms."""
    return PAIR * atoms * sum(t.neighbours for t in sizes)


def value_flops(descriptor: Descriptor, pairs: float, atoms: float) -> float:
    """Operations for the features: expansion and power spectrum of a SOAP; ten for each feature and pair of others, a rule of thumb."""
    if isinstance(descriptor, SOAP):
        lm, n, channels = (descriptor.l_max + 1) ** 2, descriptor.n_max, descriptor.n_channels
        return pairs * (2 * lm * n + 10 * (descriptor.l_max + 1) * n + 10 * lm) + atoms * lm * channels**2
    if isinstance(descriptor, Wrapper):
        return value_flops(descriptor.descriptor, pairs, atoms) + 2 * atoms * descriptor.descriptor.n_features * descriptor.n_features
    return 10 * pairs * descriptor.n_features


def jacobian_flops(descriptor: Descriptor, pairs: float, atoms: float, directions: int = 3) -> float:
    """Operations for the derivatives of the features of every centre by displaced atoms; with ``directions`` = 6 by strain."""
    if isinstance(descriptor, SOAP):
        lm, n, channels = (descriptor.l_max + 1) ** 2, descriptor.n_max, descriptor.n_channels
        one = 2 * lm * n * channels + 8 * descriptor.n_features
        return directions * (one * (pairs if directions == 3 else atoms) + 6 * lm * n * pairs + 2 * lm * channels**2 * atoms)
    if isinstance(descriptor, Wrapper):
        return jacobian_flops(descriptor.descriptor, pairs, atoms, directions)
    return 20 * directions * pairs * descriptor.n_features


def projection_flops(size: TermSize, pairs: float) -> float:
    """Operations for projecting the Jacobians of a descriptor inside another."""
    return 6 * pairs * size.inner * size.features if size.inner != size.features else 0.0


def design_steps(descriptors: Sequence[Descriptor], sizes: Sequence[TermSize], data: Data, whitened: float) -> list[Step]:
    """Derivatives and products of design rows of all atoms, for the kinds that ``data.rows`` names; so many rows are ``whitened``."""
    n, steps, forces, stress = data.atoms, [], "forces" in data.rows, "stress" in data.rows
    moved = [n * (1 + t.neighbours) for t in sizes]
    jacobian, products, scattered = 0.0, 0.0, 0.0
    for descriptor, t, m in zip(descriptors, sizes, moved, strict=True):
        points = np.mean([p for p in t.points if p]) if any(t.points) else 0
        jacobian += jacobian_flops(descriptor, m, n) * forces + jacobian_flops(descriptor, m, n, 6) * stress
        products += projection_flops(t, m) * forces + 2 * points * t.features * (n + 3 * m * forces + 6 * n * stress)
        scattered += points * (6 * m * forces + 12 * n * stress)
        products += 2 * whitened * sum(t.points) * t.rank
    width = max(t.features for t in sizes)
    steps.append(Step("Jacobians", "loops", jacobian, 24 * width * sum(moved)))
    steps.append(Step("products for design rows", "products", products, 24 * width * sum(moved)))
    steps.append(Step("sums of rows", "loops", scattered, 8 * scattered))
    return steps


def qr_flops(rows: float, columns: float) -> float:
    """Operations for the triangle of a QR decomposition (Golub and Van Loan, section 5.2)."""
    return max(2 * columns**2 * (rows - columns / 3), 0.0)
