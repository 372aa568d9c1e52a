"""Exact processes of scalar properties."""
