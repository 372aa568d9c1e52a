"""Elastic constants of crystals, by stresses and by energies of strained cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from soapkrr.errors import InputError
from soapkrr.observables.geometry import at_rest, check_rest, full_stress, operations
from soapkrr.observables.number import DELTA, Entry, Number, Result, numbers_of
from soapkrr.observables.source import Source, as_source, shifted
from soapkrr.uncertainty import Observable

#: Strain, and displacement of atoms (Å), of the finite differences.
STRAIN, STEP = 5e-3, 1e-2

#: Voigt index of each pair of axes, and the pairs (i, j), i ≤ j, of Voigt indices.
PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
UPPER = [(v, w) for v in range(6) for w in range(v, 6)]

#: Relative size below which a component vanishes by symmetry.
VANISHING = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class ElasticConstants(Result):
    """Components C_vw of the elastic tensor that symmetry leaves, and moduli of polycrystals, GPa.

    Bulk and shear moduli of Voigt (uniform strain), Reuss (uniform stress) and Hill (their mean; 1952, doi 10.1088/0370-1298/65/5/307):
    ``K_V``, ``K_R``, ``K``, ``G_V``, ``G_R``, ``G``; Young's modulus ``E`` and Poisson's ratio ``nu`` of Hill's.

    Attributes
    ----------
    numbers : {name: `Number`}.  matrix : (6, 6) C, GPa, Voigt order, in the axes of the structure.  atoms : the crystal at rest.
    by : ``"stress"`` or ``"energy"``.
    """

    numbers: Mapping[str, Number]
    matrix: np.ndarray
    atoms: Atoms
    by: str

    @property
    def stable(self) -> bool:
        """Whether every strain costs energy: all eigenvalues of C are positive (Born)."""
        return bool(np.linalg.eigvalsh(self.matrix).min() > 0)


def elastic_constants(model, atoms: Atoms, by: str = "stress", *, relax: bool = True) -> ElasticConstants:
    """Elastic tensor of a crystal, symmetrised by its point group, with the atoms free to follow a strain.

    By stress: C_vw = ∂σ_v/∂ε_w − Λ_v·Φ⁻¹Λ_w / V by central differences at one structure, Φ the Hessian of the atoms and Λ their forces by
    strain: what relaxation takes away is in closed form. By energy: second differences of the energies of strained cells whose atoms are at
    rest. Both must agree within their bars. Bars: the delta method, the uncertainty of the geometry at rest included.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.  atoms : a crystal.
    by : ``"stress"`` or ``"energy"``.
    relax : relax cell and atoms first; False: ``atoms`` must be at rest, and bars are those at this geometry.

    Raises
    ------
    InputError : the structure is not at rest and must not relax, has no three-dimensional cell, or ``by`` is something else.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> round(float(elastic_constants(EMT(), bulk("Cu"))["C44"]), 1)  # GPa
    89.9
    """
    if by not in WAYS:
        raise InputError(f"`by` must be one of {sorted(WAYS)}, received {by!r}.")
    source = as_source(model)
    rest = at_rest(source, atoms, cell=True) if relax else check_rest(source, atoms, cell=True)
    T = _symmetrised(rest.atoms)
    C, linear = WAYS[by](source, rest.atoms, T)
    if relax and rest.shifts:
        by_geometry = rest.derivatives(lambda moved: WAYS[by](source, moved, T, False)[0])
        linear = [shifted(one, by_geometry[:, k], rest.shifts) for k, one in enumerate(linear)]
    entries = _constants(C, linear, T) + _moduli(C, linear)
    return ElasticConstants(numbers_of(source, entries, DELTA), _matrix(C) / units.GPa, rest.atoms, by)


def by_stress(source: Source, atoms: Atoms, T: np.ndarray, linear: bool = True) -> tuple[np.ndarray, list[Observable]]:
    """The 21 components C_vw, eV/Å³, and their derivatives."""
    n, V = len(atoms), atoms.get_volume()
    moved = [_displaced(atoms, i, axis, sign) for i in range(n) for axis in range(3) for sign in (1, -1)] if n > 1 else []
    p = source.predict([_strained(atoms, sign * e) for e in np.eye(6) for sign in (1, -1)] + moved, ("forces", "stress"))
    F = [np.ravel(f) for f in p.forces]
    bare = np.array([p.stress[2 * w] - p.stress[2 * w + 1] for w in range(6)]).T / (2 * STRAIN)
    L = np.array([F[2 * w] - F[2 * w + 1] for w in range(6)]) / (2 * STRAIN)
    Phi = np.array([F[12 + 2 * k + 1] - F[12 + 2 * k] for k in range(len(moved) // 2)]) / (2 * STEP) if n > 1 else np.eye(3)
    follow = np.linalg.pinv(0.5 * (Phi + Phi.T), rcond=1e-6, hermitian=True) @ L.T if n > 1 else np.zeros((3, 6))
    C = 0.5 * (bare + bare.T) - L @ follow / V
    values = T @ np.array([C[v, w] for v, w in UPPER])
    if not linear or source.certain:
        return values, [Observable((), float(v)) for v in values]
    J_stress, J_forces = _stress_derivatives(follow, n, V, len(p.frames))
    stress = np.einsum("am,mkv->akv", T, J_stress)
    forces = [np.einsum("am,mx->ax", T, J).reshape(21, n, 3) for J in J_forces]
    return values, p.observables(values, forces=forces, stress=stress)


def _stress_derivatives(follow: np.ndarray, n: int, V: float, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the 21 components by stresses (21, m, 6) and forces (m, 21, 3n) of the m structures.

    δC_vw = δC⁰_vw − (δΛ_v·u_w + u_v·δΛ_w − u_v·δΦ u_w)/V with u = Φ⁻¹Λ.
    """
    of_stress, of_forces = np.zeros((21, m, 6)), np.zeros((m, 21, 3 * n))
    for a, (v, w) in enumerate(UPPER):
        for strain, other in ((w, v), (v, w)):
            for s, sign in enumerate((1, -1)):
                of_stress[a, 2 * strain + s, other] += sign * 0.5 / (2 * STRAIN)
                of_forces[2 * strain + s, a] -= sign * follow[:, other] / (2 * STRAIN * V)
        for k in range((m - 12) // 2):
            both = 0.5 * (follow[k, v] * follow[:, w] + follow[k, w] * follow[:, v]) / V
            of_forces[12 + 2 * k, a] -= both / (2 * STEP)
            of_forces[12 + 2 * k + 1, a] += both / (2 * STEP)
    return of_stress, of_forces


def by_energy(source: Source, atoms: Atoms, T: np.ndarray, linear: bool = True) -> tuple[np.ndarray, list[Observable]]:
    """The 21 components C_vw, eV/Å³, and their derivatives."""
    strains, J = [np.zeros(6)], np.zeros((21, 1 + 12 + 30))
    scale = 1 / (atoms.get_volume() * STRAIN**2)
    for v in range(6):
        strains += [sign * np.eye(6)[v] for sign in (1, -1)]
    for a, (v, w) in enumerate(UPPER):
        if v == w:
            J[a, [1 + 2 * v, 2 + 2 * v]], J[a, 0] = scale, -2 * scale
        else:
            J[a, [len(strains), len(strains) + 1]] = 0.5 * scale
            J[a, [1 + 2 * v, 2 + 2 * v, 1 + 2 * w, 2 + 2 * w]], J[a, 0] = -0.5 * scale, scale
            strains += [sign * (np.eye(6)[v] + np.eye(6)[w]) for sign in (1, -1)]
    frames = [_settled(source, _strained(atoms, e)) for e in strains]
    p = source.predict(frames)
    values = T @ J @ p.energy
    return values, p.observables(values, energy=T @ J) if linear and not source.certain else [Observable((), float(v)) for v in values]


WAYS = {"stress": by_stress, "energy": by_energy}


def _settled(source: Source, atoms: Atoms) -> Atoms:
    return at_rest(source, atoms, cell=False).atoms if len(atoms) > 1 else atoms


def _strained(atoms: Atoms, voigt: np.ndarray) -> Atoms:
    """Strained by `STRAIN` times engineering components."""
    e = full_stress(STRAIN * voigt * np.array([1, 1, 1, 0.5, 0.5, 0.5]))
    moved = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moved.set_cell(atoms.cell.array @ (np.eye(3) + e), scale_atoms=True)
    return moved


def _displaced(atoms: Atoms, i: int, axis: int, sign: int) -> Atoms:
    moved = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moved.positions[i, axis] += sign * STEP
    return moved


def _symmetrised(atoms: Atoms) -> np.ndarray:
    """(21, 21) mean over the point group of the components of a rotated tensor."""
    rotations, _ = operations(atoms)
    distinct = np.unique(np.round(rotations, 6), axis=0)
    T = np.empty((21, 21))
    for a, (v, w) in enumerate(UPPER):
        C = np.zeros((6, 6))
        C[v, w] = C[w, v] = 1.0
        full = _full(C)
        mean = np.mean([np.einsum("ia,jb,kc,ld,abcd->ijkl", R, R, R, R, full, optimize=True) for R in distinct], axis=0)
        T[:, a] = [mean[(*PAIRS[i], *PAIRS[j])] for i, j in UPPER]
    return T


def _full(C: np.ndarray) -> np.ndarray:
    """(3, 3, 3, 3) from Voigt order."""
    index = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    return C[index[:, :, None, None], index[None, None]]


def _matrix(C: np.ndarray) -> np.ndarray:
    full = np.zeros((6, 6))
    for (v, w), value in zip(UPPER, C, strict=True):
        full[v, w] = full[w, v] = value
    return full


def _constants(C: np.ndarray, linear: list[Observable], T: np.ndarray) -> list[Entry]:
    """Components that symmetry neither makes vanish nor equal to an earlier one."""
    kept, entries = [], []
    flag = "" if np.linalg.eigvalsh(_matrix(C)).min() > 0 else "the crystal is not stable: a strain lowers its energy"
    for a, (v, w) in enumerate(UPPER):
        if np.abs(T[a]).max() > VANISHING and not any(np.allclose(T[a], T[b], atol=1e-5) for b in kept):
            kept.append(a)
            entries.append(Entry(f"C{v + 1}{w + 1}", float(C[a] / units.GPa), "GPa", linear[a] / units.GPa, flag))
    return entries


def _moduli(C: np.ndarray, linear: list[Observable]) -> list[Entry]:
    """Moduli of polycrystals; by central differences of the formulas, which are smooth."""
    if np.linalg.eigvalsh(_matrix(C)).min() <= 0:
        return []
    values, h = moduli(C), 1e-4 * np.abs(C).max()
    J = np.array([(moduli(C + h * e) - moduli(C - h * e)) / (2 * h) for e in np.eye(21)]).T
    entries = []
    for (name, unit, factor), value, row in zip(MODULI, values, J, strict=True):
        moved = shifted(
            Observable((), float(factor * value)), factor * row, [one - c for one, c in zip(linear, map(float, C), strict=True)]
        )
        entries.append(Entry(name, float(factor * value), unit, moved))
    return entries


MODULI = [(name, "GPa", 1 / units.GPa) for name in ("K", "K_V", "K_R", "G", "G_V", "G_R", "E")] + [("nu", "", 1.0)]


def moduli(C: np.ndarray) -> np.ndarray:
    """K, K_V, K_R, G, G_V, G_R, E and ν of the 21 components."""
    c = _matrix(C)
    s = np.linalg.inv(c)
    diagonal, off, shear = _traces(c)
    K_V, G_V = (diagonal + 2 * off) / 9, (diagonal - off + 3 * shear) / 15
    diagonal, off, shear = _traces(s)
    K_R, G_R = 1 / (diagonal + 2 * off), 15 / (4 * diagonal - 4 * off + 3 * shear)
    K, G = (K_V + K_R) / 2, (G_V + G_R) / 2
    return np.array([K, K_V, K_R, G, G_V, G_R, 9 * K * G / (3 * K + G), (3 * K - 2 * G) / (2 * (3 * K + G))])


def _traces(x: np.ndarray) -> tuple[float, float, float]:
    return x[0, 0] + x[1, 1] + x[2, 2], x[0, 1] + x[0, 2] + x[1, 2], x[3, 3] + x[4, 4] + x[5, 5]
