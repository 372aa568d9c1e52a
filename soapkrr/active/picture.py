"""Pictures of structures as text (SVG): nothing else is needed to show them."""

from __future__ import annotations

from itertools import product

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

#: Rotation of what is drawn, radians about x and y; width of a picture in pixels; radius of an atom by its covalent radius.
TILT, SIZE, RADIUS = (-1.2, 0.35), 90, 0.75


def svg(atoms: Atoms) -> str:
    """A picture of a structure, atoms behind first, and the edges of its cell."""
    a, b = TILT
    turn = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    positions, radii = atoms.positions @ turn.T, RADIUS * covalent_radii[atoms.numbers]
    edges = _edges(atoms) @ turn.T
    corners = np.concatenate([positions - radii[:, None], positions + radii[:, None], edges.reshape(-1, 3)])[:, :2]
    low, scale = corners.min(axis=0), SIZE / max(float(np.ptp(corners, axis=0).max()), 1e-9)

    def place(r) -> list[float]:
        x, y = (np.asarray(r)[:2] - low) * scale
        return [float(x), float(SIZE - y)]

    parts = [f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#999"/>' for (x1, y1), (x2, y2) in
             ((place(start), place(end)) for start, end in edges)]  # fmt: skip
    for k in np.argsort(positions[:, 2], kind="stable"):
        x, y = place(positions[k])
        red, green, blue = (255 * jmol_colors[atoms.numbers[k]]).astype(int)
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radii[k] * scale:.1f}" fill="{colour}" stroke="#333" stroke-width=".5"/>')
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}">{"".join(parts)}</svg>'


def _edges(atoms: Atoms) -> np.ndarray:
    """(12, 2, 3) ends of the edges of a cell; none without one."""
    if not atoms.cell.rank == 3:
        return np.zeros((0, 2, 3))
    ends = []
    for axis in range(3):
        for others in product((0, 1), repeat=2):
            start = np.insert(np.array(others, dtype=float), axis, 0.0)
            end = np.insert(np.array(others, dtype=float), axis, 1.0)
            ends.append([start @ atoms.cell.array, end @ atoms.cell.array])
    return np.array(ends)
