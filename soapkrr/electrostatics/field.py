"""Charges in a homogeneous electric field: E = −ε·μ, μ = Σ q r; forces q ε, so that the Born charge ∂F/∂ε of an atom is its charge."""

from __future__ import annotations

import numpy as np

from soapkrr.electrostatics.coulomb import Electrostatics
from soapkrr.errors import InputError
from soapkrr.structures import VOIGT

#: Components of a field along a periodic direction, relative to the field, up to which it is across.
ACROSS = 1e-8


def dipole(positions, charges) -> np.ndarray:
    """(3,) Σ q_i r_i, e Å, of the positions as they are; of a net charge it depends on the origin.

    Examples
    --------
    >>> dipole([[0, 0, 0], [0, 0, 2.0]], [1.0, -1.0]).tolist()
    [0.0, 0.0, -2.0]
    """
    return np.asarray(charges, dtype=float) @ np.asarray(positions, dtype=float)


def in_field(positions, charges, cell, pbc, field) -> Electrostatics:
    """Energy of charges in a homogeneous field, without that among themselves.

    Parameters
    ----------
    positions, charges, cell, pbc : as in `electrostatics`.  field : (3,) ε, V/Å.

    Raises
    ------
    InputError : the field is not three finite numbers, or has a component along a periodic direction, where its potential has no period.

    Examples
    --------
    >>> import numpy as np
    >>> found = in_field(np.array([[0, 0, 0], [0, 0, 2.0]]), [1.0, -1.0], np.zeros((3, 3)), False, [0, 0, 0.1])
    >>> round(found.energy, 12), found.forces[0].tolist()
    (0.2, [0.0, 0.0, 0.1])
    """
    field = checked_field(field)
    positions, charges = np.asarray(positions, dtype=float), np.asarray(charges, dtype=float)
    for axis in np.flatnonzero(np.broadcast_to(np.asarray(pbc, dtype=bool), 3)):
        vector = np.asarray(cell, dtype=float)[axis]
        if abs(field @ vector) > ACROSS * np.linalg.norm(field) * np.linalg.norm(vector):
            raise InputError(
                f"`field`={field.tolist()} has a component along the periodic direction {axis}, where its potential would jump at every "
                "cell: a slab takes one across, a molecule any."
            )
    potentials = -positions @ field
    moment = dipole(positions, charges)
    strain = np.array([-0.5 * (moment[a] * field[b] + moment[b] * field[a]) for a, b in VOIGT])
    return Electrostatics(charges * potentials, potentials, np.outer(charges, field), strain)


def checked_field(field) -> np.ndarray:
    """(3,) V/Å."""
    field = np.asarray(field, dtype=float)
    if field.shape != (3,) or not np.isfinite(field).all():
        raise InputError(f"`field` must be three finite numbers (V/Å), received {field.tolist()}.")
    return field
