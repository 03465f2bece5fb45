"""Measurements: how fast, against what, and whether the picture is still the same."""
