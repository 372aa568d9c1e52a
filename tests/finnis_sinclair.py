"""Tungsten of Finnis and Sinclair (1984, doi 10.1080/01418618408244210), for tests that need a body-centred metal."""

from __future__ import annotations

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list


class Tungsten(Calculator):
    """E = ½ Σ V(r_ij) − A Σ_i √ρ_i with ρ_i = Σ_j (r_ij − d)² and V = (r − c)² (c0 + c1 r + c2 r²)."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    A, d, c, polynomial = 1.896373, 4.400224, 3.25, (47.1346499, -33.7665655, 6.2541999)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, r, D = neighbor_list("ijdD", self.atoms, self.d)
        n, (c0, c1, c2) = len(self.atoms), self.polynomial
        x = np.where(r < self.c, r - self.c, 0.0)
        root = np.sqrt(np.bincount(i, (r - self.d) ** 2, n))
        energy = 0.5 * (x**2 * (c0 + c1 * r + c2 * r**2)).sum() - self.A * root.sum()
        slope = 0.5 * (2 * x * (c0 + c1 * r + c2 * r**2) + x**2 * (c1 + 2 * c2 * r)) - self.A * (r - self.d) / root[i]
        v = (slope / r)[:, None] * D
        forces = np.array([np.bincount(i, v[:, k], n) - np.bincount(j, v[:, k], n) for k in range(3)]).T
        stress = np.einsum("ka,kb->ab", v, D) / self.atoms.get_volume()
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": stress.flat[[0, 4, 8, 5, 2, 1]]}
