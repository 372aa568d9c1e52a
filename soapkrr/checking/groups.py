"""Groups of structures whose energies are shifted against those of the others."""

from __future__ import annotations

import numpy as np

from soapkrr.checking.findings import Finding
from soapkrr.checking.judging import Judged
from soapkrr.checking.probe import ridge
from soapkrr.labels import KINDS
from soapkrr.metrics import members_by

#: Offset of a group's energies: standard deviations, and eV per atom at least.
OFFSET_SCALES, OFFSET = 10.0, 0.005


def group_findings(judged: Judged, by: str) -> list[Finding]:
    """Groups whose energies are shifted against those of the others, in excess of what forces and shapes explain."""
    members = {name: some for name, some in members_by(judged.probe.frames, by).items() if len(some) >= 3}
    if len(members) < 2:
        return []
    names = list(members)
    shift, covariance = _shifts(judged, [members[name] for name in names])
    middle = np.median(shift) if len(names) > 2 else shift[np.argmax([len(members[name]) for name in names])]
    found = []
    for g, name in enumerate(names):
        other = int(np.argmin(np.abs(shift - middle)))
        std = np.sqrt(max(covariance[g, g] + covariance[other, other] - 2 * covariance[g, other], 1e-30))
        if g != other and abs(shift[g] - middle) > max(OFFSET_SCALES * std, OFFSET):
            evidence = {"shift (eV/atom)": float(shift[g] - middle), "its standard deviation": float(std)}
            what = f"energies of {by} {name!r} are shifted against those of the others: another method, or other settings?"
            advice = (
                "Compute one structure of the group as the others were; subtract the difference, or fit without the energies of the group."
            )
            found.append(
                Finding("warning", what, tuple(members[name]), evidence, advice, f'[a for a in frames if a.info.get("{by}") != {name!r}]')
            )
    return found


def _shifts(judged: Judged, groups: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Shifts of the energies of groups, eV per atom, and their covariance, fitted together with everything else.

    The noise of the energies is that left beside the shifts, which would otherwise count as noise.
    """
    rows, sizes = judged.rows, np.array([len(atoms) for atoms in judged.probe.frames])
    columns = np.zeros((len(rows.target), len(groups)))
    for g, group in enumerate(groups):
        mine = np.flatnonzero((rows.kind == 0) & np.isin(rows.structure, group))
        columns[mine, g] = np.sqrt(sizes[rows.structure[mine]])
    seen = np.array([(int(s), int(k)) not in judged.odd for s, k in zip(rows.structure, rows.kind, strict=True)])
    all_columns, noise = np.hstack([rows.array, columns])[seen], dict(judged.left_out.noise)
    solved, energies = np.zeros((all_columns.shape[1], 1 + len(groups))), rows.kind[seen] == 0
    for _ in range(3):
        sigma = np.array([noise[kind] for kind in KINDS])[rows.kind[seen]]
        Phi = all_columns / sigma[:, None]
        A = Phi.T @ Phi
        A.flat[:: len(A) + 1] += np.r_[np.full(rows.array.shape[1], ridge(A)), np.full(len(groups), 1e-2)]
        solved = np.linalg.solve(A, np.column_stack([Phi.T @ (rows.target[seen] / sigma), np.eye(len(A))[:, -len(groups) :]]))
        left = (rows.target[seen] - all_columns @ solved[:, 0])[energies]
        noise["energy"] = float(np.quantile(np.abs(left), 0.9)) + 1e-3 * judged.left_out.noise["energy"]
    return solved[-len(groups) :, 0], solved[-len(groups) :, 1:]
