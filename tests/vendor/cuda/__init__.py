"""Stands where cuda-bindings would."""
