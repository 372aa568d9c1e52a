"""Processes whose representers are observations: all of them, or a chosen part."""
