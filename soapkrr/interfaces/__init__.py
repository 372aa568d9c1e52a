"""Other programs that ask for energies and forces: LAMMPS through its Python interface, and those that speak i-PI's protocol."""
