"""DDIM with eta 0 (Song et al. 2021, Eq. 12): first order, nothing kept."""

from __future__ import annotations

from collections.abc import Collection

from runtime.method.solvers.solver import Grid, Solver, Update, leading, move, trailing


def updates(grid: Grid, _boundaries: Collection[int]) -> list[Update]:
    """One per step."""
    return [Update(*move(a, b)) for a, b in zip(grid.alphas, grid.targets, strict=True)]


LEADING = Solver(grid=leading, updates=updates)
TRAILING = Solver(grid=trailing, updates=updates)
