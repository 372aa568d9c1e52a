"""Sparse processes: representers are environments of atoms, the fit is Bayesian linear regression on their features."""
