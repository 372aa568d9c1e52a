"""Coulomb energy of charges at atoms, in bulk, slabs and clusters: Ewald sums on arrays, with potentials, forces and strain derivatives."""

from soapkrr.electrostatics.coulomb import COULOMB, Electrostatics, electrostatics
from soapkrr.electrostatics.field import dipole, in_field
from soapkrr.electrostatics.matrix import interaction_matrix

__all__ = ["COULOMB", "Electrostatics", "dipole", "electrostatics", "in_field", "interaction_matrix"]
