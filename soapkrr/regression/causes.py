"""What may have happened to labels, by the factor that leads to them from those expected: the one table of it."""

from __future__ import annotations

import numpy as np
from ase import units

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol

#: Likely causes of a ratio of given to expected labels.
RATIOS = {
    "forces": {
        -1.0: "the sign: gradients in place of forces?",
        units.Bohr: "eV/Bohr in place of eV/Å?",
        units.Bohr / units.Hartree: "Hartree/Bohr in place of eV/Å?",
        -units.Bohr / units.Hartree: "Hartree/Bohr in place of eV/Å, and the sign: gradients?",
        units.Bohr / units.Rydberg: "Rydberg/Bohr in place of eV/Å?",
        1 / units.Hartree: "Hartree/Å in place of eV/Å?",
        1 / KCAL: "kcal/mol/Å in place of eV/Å?",
        1 / KJ: "kJ/mol/Å in place of eV/Å?",
        1000.0: "meV/Å in place of eV/Å?",
    },
    "stress": {
        -1.0: "the sign: stress = −virial/V, positive under tension, is expected",
        1 / units.GPa: "GPa in place of eV/Å³?",
        -1 / units.GPa: "GPa in place of eV/Å³, and the sign?",
        10 / units.GPa: "kbar in place of eV/Å³?",
        -10 / units.GPa: "kbar in place of eV/Å³, and the sign, as VASP prints?",
        units.Bohr**3 / units.Hartree: "Hartree/Bohr³ in place of eV/Å³?",
        units.Bohr**3 / units.Rydberg: "Rydberg/Bohr³ in place of eV/Å³?",
    },
    "energy": {
        1 / units.Hartree: "Hartree in place of eV?",
        1 / units.Rydberg: "Rydberg in place of eV?",
        1 / KCAL: "kcal/mol in place of eV?",
        1 / KJ: "kJ/mol in place of eV?",
        1000.0: "meV in place of eV?",
    },
}

#: What else it may be.
OTHERWISE = {
    "energy": "a total energy of other settings, or not converged?",
    "forces": "forces of another structure, or not converged?",
    "stress": "a virial in place of the stress, or other settings?",
}

#: Orders of the six components of a stress that programs have: where xx, yy, zz, yz, xz, xy stand in them.
ORDERS = {
    "(xx, yy, zz, xy, yz, zx), VASP's, in place of (xx, yy, zz, yz, xz, xy)?": (0, 1, 2, 4, 5, 3),
    "(xx, yy, zz, xy, xz, yz), LAMMPS's, in place of (xx, yy, zz, yz, xz, xy)?": (0, 1, 2, 5, 4, 3),
    "(xx, xy, xz, yy, yz, zz), the rows of a matrix, in place of (xx, yy, zz, yz, xz, xy)?": (0, 3, 5, 4, 2, 1),
}

#: Factor by which single labels may miss a ratio, and how alike in direction they must be.
WIDTHS, ALIKE = {"energy": 1.02, "forces": 1.6, "stress": 1.6}, 0.8


def ratio_of(kind: str, given: np.ndarray, expected: np.ndarray) -> float | None:
    """The ratio of `RATIOS` that best leads from expected to given labels; None where none does."""
    norms = np.linalg.norm(given) * np.linalg.norm(expected)
    if not norms > 0 or abs(given @ expected) <= ALIKE * norms:
        return None
    factor = given @ expected / (expected @ expected)
    distance = {ratio: abs(np.log(factor / ratio)) for ratio in RATIOS[kind] if factor * ratio > 0}
    nearest = min(distance, key=lambda ratio: distance[ratio], default=None)
    if nearest is None or not distance[nearest] < np.log(WIDTHS[kind]) or abs(np.log(abs(factor))) < distance[nearest] and factor > 0:
        return None
    return nearest


def likely_cause(kind: str, given: np.ndarray, expected: np.ndarray) -> str:
    """What may have happened to labels, by the factor that best leads to them from those expected."""
    ratio = ratio_of(kind, given, expected)
    return OTHERWISE[kind] if ratio is None else RATIOS[kind][ratio]
