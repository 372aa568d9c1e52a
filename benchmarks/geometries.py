"""Molecules that ASE does not have, from bond lengths, angles and dihedrals of textbooks."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.io.zmatrix import parse_zmatrix

#: Atom; atom and length, Å; atom and angle; atom and dihedral, degrees. φ = −80°, ψ = 80°, methyl groups staggered.
ALANINE_DIPEPTIDE = """
C
C 1 1.51
N 2 1.35 1 116
C 3 1.45 2 122 1 180
C 4 1.53 3 110 2 -80
N 5 1.35 4 116 3 80
C 6 1.45 5 122 4 180
O 2 1.23 1 122 3 180
H 3 1.01 2 119 8 180
C 4 1.53 3 110 5 -122
H 4 1.09 3 108 5 118
O 5 1.23 4 121 6 180
H 6 1.01 5 119 12 180
H 1 1.09 2 110 3 180
H 1 1.09 2 110 3 60
H 1 1.09 2 110 3 -60
H 10 1.09 4 110 3 180
H 10 1.09 4 110 3 60
H 10 1.09 4 110 3 -60
H 7 1.09 6 109 5 180
H 7 1.09 6 109 5 60
H 7 1.09 6 109 5 -60
"""

#: N1 C2 N3 C4 C5 C6 around the ring, then O2 O4 H1 H3 H5 H6.
URACIL = """
N
C 1 1.38
N 2 1.38 1 114
C 3 1.40 2 127 1 0
C 4 1.45 3 114 2 0
C 1 1.37 2 123 3 0
O 2 1.22 1 123 3 180
O 4 1.22 3 120 5 180
H 1 1.01 2 115 6 180
H 3 1.01 2 116 4 180
H 5 1.08 4 118 6 180
H 6 1.08 1 115 5 180
"""


def alanine_dipeptide() -> Atoms:
    return parse_zmatrix(ALANINE_DIPEPTIDE.strip())


def uracil_dimer() -> Atoms:
    """Two hydrogen bonds N3–H…O4 of 2.85 Å around a centre of inversion."""
    one = parse_zmatrix(URACIL.strip())
    x = one.positions
    along = (x[9] - x[2]) / np.linalg.norm(x[9] - x[2])
    centre = (x[2] + 2.85 * along + x[7]) / 2
    other = one.copy()
    other.positions = 2 * centre - x
    return one + other


def water_hexamer() -> Atoms:
    """A ring, O…O 2.75 Å; each gives one hydrogen to the next, the free ones point up and down by turns."""
    angles = np.radians(60 * np.arange(6))
    oxygen = 2.75 * np.stack([np.cos(angles), np.sin(angles), np.zeros(6)], axis=1)
    atoms = Atoms()
    for k, o in enumerate(oxygen):
        given = (oxygen[(k + 1) % 6] - o) / 2.75
        aside = np.cross(given, [0, 0, 1]) * 0.4 + np.array([0, 0, 0.9 * (-1) ** k])
        free = np.cos(np.radians(105)) * given + np.sin(np.radians(105)) * aside / np.linalg.norm(aside)
        atoms += Atoms("OHH", positions=[o, o + 0.98 * given, o + 0.96 * free])
    return atoms
