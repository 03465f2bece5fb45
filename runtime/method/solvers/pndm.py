"""PLMS, a linear multistep method on noise predictions (Liu et al. 2022): as released, and capped.

At guidance 5 the released method's fourth order needs small steps: its weights add up to 6.7 in
magnitude, and with 20 steps the latents' variance grows without bound. The second order does not.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from engines.bundle.manifest import NoiseSchedule
from runtime.method.solvers.solver import KEEP_NOISE, Grid, Solver, Update, leading, move

# Linear multistep weights by how many earlier predictions are kept, newest first.
_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def released_grid(schedule: NoiseSchedule, steps: int) -> Grid:
    """The leading grid, the second level twice (the method's start without Runge-Kutta steps)."""
    grid = leading(schedule, steps)
    order = [*range(min(2, steps)), *range(1, steps)]
    return Grid(
        timesteps=tuple(grid.timesteps[i] for i in order),
        alphas=grid.alphas[order],
        targets=grid.targets[order],
        shares=tuple(grid.shares[i] for i in order),
    )


def released_updates(grid: Grid, _boundaries: Collection[int]) -> list[Update]:
    """Eq. 9 and 12, as released: up to fourth order, and history kept from stage to stage.

    Step 1 repeats step 0 with the mean of both predictions, from the latents before step 0. Those
    are not kept: x0 -> a x0 + b (e0 + e1) / 2 is the same as x1 + b (e1 - e0) / 2.
    """
    updates = []
    for step, (alpha, target) in enumerate(zip(grid.alphas, grid.targets, strict=True)):
        if step == 1:
            _, noise = move(grid.alphas[0], grid.targets[0])
            updates.append(Update(1.0, noise / 2, (-noise / 2,)))
        else:
            updates.append(_multistep(alpha, target, order=min(max(step, 1), 4)))
    return updates


def second_order_updates(grid: Grid, boundaries: Collection[int]) -> list[Update]:
    """Order 2, and 1 where nothing kept is of use."""
    return [
        _multistep(alpha, target, order=1 if step == 0 or step in boundaries else 2)
        for step, (alpha, target) in enumerate(zip(grid.alphas, grid.targets, strict=True))
    ]


def _multistep(alpha: float, target: float, *, order: int) -> Update:
    latents, noise = move(alpha, target)
    current, *history = (float(noise * weight) for weight in np.array(_ADAMS_BASHFORTH[order - 1]))
    return Update(latents, current, tuple(history), keep=KEEP_NOISE)


RELEASED = Solver(grid=released_grid, updates=released_updates)
SECOND_ORDER = Solver(grid=leading, updates=second_order_updates)
