"""Measurements: one analysis a file."""
