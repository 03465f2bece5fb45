"""The kernels compiled ahead of time."""
