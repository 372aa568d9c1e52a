"""Gaussian approximation potentials as QUIP writes them: XML files with sparse points beside them."""
