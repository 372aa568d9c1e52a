"""PBE as reference: in def2-SVP with fitted densities by PySCF (doi 10.1063/5.0006074), in plane waves by GPAW (doi 10.1063/5.0182685)."""

from __future__ import annotations

from ase.calculators.calculator import Calculator, all_changes
from ase.units import Bohr, Hartree


class PBE(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        from pyscf import dft, gto

        super().calculate(atoms, properties, system_changes)
        places = [(atom.symbol, atom.position) for atom in self.atoms]
        solved = dft.RKS(gto.M(atom=places, basis="def2-svp", unit="Angstrom", verbose=0), xc="pbe").density_fit()
        solved.conv_tol = 1e-9
        energy = solved.kernel()
        if not solved.converged:
            raise RuntimeError("the density does not converge.")
        gradient = solved.nuc_grad_method()
        gradient.grid_response = True
        self.results = {"energy": energy * Hartree, "forces": -gradient.kernel() * Hartree / Bohr}


def plane_waves(cutoff: float, kpts: int = 1):
    """GPAW with ``cutoff`` in eV and as many k-points along each vector, shifted."""
    from gpaw import GPAW, PW

    smearing = {"name": "fermi-dirac", "width": 0.05}
    accuracy = {"density": 1e-6, "energy": 1e-6}
    grid = {"size": [kpts] * 3, "gamma": kpts == 1}
    return GPAW(mode=PW(cutoff), xc="PBE", kpts=grid, occupations=smearing, convergence=accuracy, txt=None)
