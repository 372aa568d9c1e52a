"""Gaussian processes of tensors: sums of equivariant functions of atoms' surroundings."""
