"""Builds the wheel: setuptools' backend, with every package moved below one import name."""
