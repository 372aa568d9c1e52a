"""What can be said of labelled structures without any model."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from scipy.spatial import cKDTree

from soapkrr.checking.findings import Finding
from soapkrr.labels import KINDS, Labels
from soapkrr.structures import Batch, species_name, split_by_atoms

#: Part of the sum of two covalent radii below which atoms are too close.
CLOSE = 0.4

#: Net force of a structure that is no rounding: per √atom, as part of the root mean square force and in eV/Å.
NET_PART, NET = 0.2, 0.02

#: Environments below which a species has too few, where others have ten times as many.
FEW = 5

#: Near-duplicates: largest difference of distances and of cell vectors, Å; energies farther apart than this, eV per √atom, are not one's.
NEAR, APART = 0.03, 0.004


def plain_findings(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """All but `duplicates`, whose labels must be in the right units."""
    checks = (missing_labels, too_close, net_force, few_environments, undetermined_references)
    return [finding for check in checks for finding in check(frames, labels)]


def quick_findings(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """What a fit can warn of at no cost; it finds copies itself."""
    return [finding for check in (too_close, net_force, few_environments) for finding in check(frames, labels)]


def missing_labels(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """Kinds that some structures have and others have not."""
    found = []
    for kind in KINDS:
        without = [s for s, label in enumerate(labels) if not label.has(kind) and (kind != "stress" or frames[s].pbc.all())]
        if 0 < len(without) and any(label.has(kind) for label in labels):
            advice = "Nothing, if this is meant: a fit takes what there is. Otherwise look for labels of another name (`Observations`)."
            code = "model = soapkrr.fit(frames, observations=soapkrr.Observations(...))"
            found.append(
                Finding("note", f"no {kind} where other structures have one", tuple(without), {"structures": len(without)}, advice, code)
            )
    return found


def too_close(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """Atoms closer than a part of their covalent radii."""
    worst, shortest = [], np.inf
    longest = 2 * CLOSE * max(covalent_radii[z] for atoms in frames for z in set(atoms.numbers.tolist()))
    for first, group in split_by_atoms(frames, 4096):
        batch = Batch.from_atoms(group, first)
        pairs = batch.pairs(longest)
        r = np.linalg.norm(pairs.vectors, axis=1)
        bad = r < CLOSE * (covalent_radii[batch.numbers[pairs.i]] + covalent_radii[batch.numbers[pairs.j]])
        if bad.any():
            shortest = min(shortest, r[bad].min())
            worst += np.unique(batch.frame[pairs.i[bad]]).tolist()
    if not worst:
        return []
    advice = "Look at them: a wrong cell or unit of length (Bohr?). If they are meant, add core repulsion."
    return [
        Finding(
            "warning", "atoms are too close", tuple(worst), {"shortest distance (Å)": shortest}, advice, "SparseGP(..., baseline=ZBL())"
        )
    ]


def net_force(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """Forces that do not add up to zero."""
    whole = [(s, label.forces) for s, label in enumerate(labels) if label.forces is not None and np.isfinite(label.forces).all()]
    if not whole:
        return []
    size = np.array([np.sqrt(np.mean(f**2)) for _, f in whole])
    net = np.array([np.linalg.norm(f.sum(axis=0)) / np.sqrt(len(f)) for _, f in whole])
    bad = np.flatnonzero((net > NET_PART * np.maximum(size, np.median(size))) & (net > NET))
    if not len(bad):
        return []
    evidence = {"largest net force (eV/Å)": max(float(np.linalg.norm(whole[k][1].sum(axis=0))) for k in bad)}
    advice = (
        "Forces without an external field add up to zero: fixed atoms, a lost atom, other units for some? Mask those that are not forces."
    )
    return [
        Finding(
            "warning",
            "the forces do not add up to zero",
            tuple(whole[k][0] for k in bad),
            evidence,
            advice,
            'atoms.arrays["force_mask"] = mask',
        )
    ]


def few_environments(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """Species with too few environments to learn from."""
    several = [atoms for atoms in frames if len(atoms) > 1 or atoms.pbc.any()]
    counts = np.bincount(np.concatenate([atoms.numbers for atoms in several]), minlength=2) if several else np.zeros(1, dtype=int)
    found = []
    for z in np.flatnonzero((counts > 0) & (counts < FEW) & (10 * counts <= counts.max())):
        where = tuple(s for s, atoms in enumerate(frames) if z in atoms.numbers)
        advice = "Predictions for this species will be guesses: add structures that have it, or leave these out."
        what = f"{species_name(z)} has few environments"
        found.append(
            Finding(
                "warning",
                what,
                where,
                {"environments": int(counts[z])},
                advice,
                f'[a for a in frames if "{species_name(z)}" not in a.symbols]',
            )
        )
    return found


def undetermined_references(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """Species whose reference energies no composition tells apart."""
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    rows = np.array(
        [[np.count_nonzero(a.numbers == z) for z in species] for a, label in zip(frames, labels, strict=True) if label.has("energy")]
    )
    if not len(rows) or np.linalg.matrix_rank(rows) == len(species):
        return []
    rank = int(np.linalg.matrix_rank(rows))
    names = ", ".join(map(species_name, species))
    advice = "Energies of other compositions cannot be predicted: add isolated atoms of every species, of the same method, or give theirs."
    code = "SparseGP(..., baseline={" + ", ".join(f'"{species_name(z)}": ...' for z in species) + "})"
    what = f"reference energies of {names} are undetermined: their numbers of atoms are proportional or bound to each other"
    return [Finding("note", what, (), {"species": len(species), "rank of the compositions": rank}, advice, code)]


def duplicates(frames: list[Atoms], labels: list[Labels]) -> list[Finding]:
    """The same structure, or nearly so, twice: with labels that agree, or do not."""
    same, apart, most = [], [], 0.0
    for a, b, exact in _near_pairs(frames):
        miss = _disagreement(frames[a], frames[b], labels[a], labels[b], exact)
        if miss > 1:
            apart, most = [*apart, a, b], max(most, miss)
        elif exact:
            same.append(b)
    found = []
    if apart:
        evidence = {"largest difference, in units of what is tolerated": most}
        advice = "One of each pair is wrong, or of another method: look at both calculations and remove one."
        frames_of = tuple(dict.fromkeys(map(int, apart)))
        what = "the same structure, or nearly, has different labels"
        found.append(Finding("error", what, frames_of, evidence, advice, f"del frames[{frames_of[-1]}]"))
    if same:
        advice = "They count twice in a fit, and no error measured on a copy of a fitted structure means anything."
        found.append(Finding("note", "copies of other structures", tuple(sorted(set(same))), {"copies": len(set(same))}, advice, ""))
    return found


def _near_pairs(frames: list[Atoms]) -> list[tuple[int, int, bool]]:
    """(a, b, whether equal to 1e-4 Å) of structures with the same atoms in the same order, cells and distances."""
    groups: dict[tuple, list[int]] = {}
    for s, atoms in enumerate(frames):
        groups.setdefault((atoms.numbers.tobytes(), atoms.pbc.tobytes()), []).append(s)
    found = []
    for members in groups.values():
        if len(members) > 1:
            print_of = np.array([_fingerprint(frames[s]) for s in members])
            for a, b in sorted(cKDTree(print_of[:, :12]).query_pairs(NEAR, p=np.inf)):
                distance = np.abs(print_of[a] - print_of[b]).max()
                if distance < NEAR:
                    found.append((members[a], members[b], bool(distance < 1e-4)))
    return found


def _fingerprint(atoms: Atoms) -> np.ndarray:
    """Distances of atoms next and next but one to each other in the list, and the cell's metric: no rotation or wrapping changes it."""
    r = atoms.positions
    vectors = np.concatenate([np.diff(r, axis=0), r[2:] - r[:-2], r[3:] - r[:-3]])
    lengths = (
        np.zeros(1)
        if not len(vectors)
        else find_mic(vectors, atoms.cell, atoms.pbc)[1]
        if atoms.pbc.any()
        else np.linalg.norm(vectors, axis=1)
    )
    cell = atoms.cell.cellpar() * [1, 1, 1, 0.05, 0.05, 0.05] if atoms.pbc.any() else np.zeros(6)
    return np.concatenate([30 * cell, lengths])


def _disagreement(one: Atoms, other: Atoms, a: Labels, b: Labels, exact: bool) -> float:
    """Difference of the labels over what is tolerated: of energies less −½(F + F′)·(r′ − r), and where they are equal of forces."""
    n, miss = len(one), 0.0
    moved = find_mic(other.positions - one.positions, one.cell, one.pbc)[0] if one.pbc.any() else other.positions - one.positions
    moved = moved - moved.mean(axis=0)
    if a.has("energy") and b.has("energy"):
        work = 0.0
        if a.has("forces") and b.has("forces") and np.abs(moved).max() < 3 * NEAR:
            work = -0.5 * np.nansum((a.forces + b.forces) * moved)
        elif not exact:
            return 0.0
        # Forces change by up to some 50 eV/Å² over the way: what is left of the rule of the trapezium.
        slack = 0.0 if exact else 0.1 * abs(work) + 5.0 * float(np.sum(moved**2))
        miss = abs(b.energy - a.energy - work) / (APART * np.sqrt(n) + slack)
    if exact and a.has("forces") and b.has("forces"):
        size = np.linalg.norm(np.nan_to_num([a.forces, b.forces]), axis=2)
        miss = max(miss, float(np.abs(size[0] - size[1]).max() / (0.02 + 0.1 * size.max())))
    return miss
