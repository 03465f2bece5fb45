"""Noise schedule: timesteps, stages and the scheduler update as one table of coefficients.

Every solver (runtime.method.solvers) is linear in the latents, the current noise prediction and up
to three things kept by earlier steps, each of them linear in that step's latents and prediction. So
one row of numbers per step says everything about a step. The host applies a row with numpy; the GPU
kernels read the same rows from device memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np
import numpy.typing as npt

from engines.bundle.manifest import NoiseSchedule
from runtime.method.solvers import SOLVERS, Scheduler

HISTORY_SLOTS = 3

Float32Array = npt.NDArray[np.float32]


class Stage(Enum):
    """Which model predicts the noise of a step (paper, section 3.3)."""

    SCENE = "scene"
    FUSION = "fusion"
    SUBJECT = "subject"


class Column(IntEnum):
    """Columns of the coefficient table, one float32 row of 10 per step.

    new latents = LATENTS * latents + NOISE * noise + sum over slots of HISTORY_k * history[k];
    afterwards KEEP_LATENTS * latents + KEEP_NOISE * noise, of the latents before the step, is kept
    in history[KEEP_SLOT], unless KEEP_SLOT is -1.
    """

    LATENTS = 0
    NOISE = 1
    HISTORY_0 = 2
    HISTORY_1 = 3
    HISTORY_2 = 4
    KEEP_SLOT = 5
    GUIDANCE_SCALE = 6
    TIMESTEP = 7
    KEEP_LATENTS = 8
    KEEP_NOISE = 9


@dataclass(frozen=True, kw_only=True)
class StageBoundaries:
    """Inclusive last step of the scene and of the fusion stage (the released script's numbers).

    start_merge_step=-1 starts with fusion; start_merge_step >= final_step has no fusion step.
    """

    start_merge_step: int
    final_step: int

    @classmethod
    def from_fractions(cls, alpha: float, beta: float, shares: Sequence[float]) -> StageBoundaries:
        """Scene while a step's share is below alpha, fusion while it is below beta (section 3.3).

        shares: how much of the trajectory lies behind each step (solvers.solver.Grid); by them a
        stage ends at the same noise level however the steps are spaced.
        """
        below = [sum(round(share, 9) < round(f, 9) for share in shares) for f in (alpha, beta)]
        return cls(start_merge_step=below[0] - 1, final_step=below[1] - 1)

    def stage(self, step: int) -> Stage:
        """The stage of a step, counted from 0."""
        if step <= self.start_merge_step:
            return Stage.SCENE
        if step <= self.final_step:
            return Stage.FUSION
        return Stage.SUBJECT

    def starts(self, steps: int) -> frozenset[int]:
        """The steps, but the first, at which another stage begins."""
        stages = [self.stage(step) for step in range(steps)]
        return frozenset(step for step in range(1, steps) if stages[step] is not stages[step - 1])


def timesteps_of(
    scheduler: Scheduler, schedule: NoiseSchedule, num_inference_steps: int
) -> list[int]:
    """The descending list of timesteps, one per step; PNDM takes one step more than it is told."""
    return list(SOLVERS[scheduler].grid(schedule, num_inference_steps).timesteps)


def coefficient_table(
    scheduler: Scheduler,
    schedule: NoiseSchedule,
    num_inference_steps: int,
    guidance_scale: float,
    stage_starts: Collection[int] = (),
) -> Float32Array:
    """One row per step, [steps, 10] float32, columns as in Column; computed in float64.

    stage_starts: steps at which another stage begins (StageBoundaries.starts); solvers start anew
    there. What is kept lives in a ring of HISTORY_SLOTS slots, so no step ever moves it.
    """
    solver = SOLVERS[scheduler]
    grid = solver.grid(schedule, num_inference_steps)
    updates = solver.updates(grid, stage_starts)
    table = np.zeros((len(grid), len(Column)), np.float64)
    kept = 0
    for row, timestep, update in zip(table, grid.timesteps, updates, strict=True):
        row[Column.LATENTS], row[Column.NOISE] = update.latents, update.noise
        for age, coefficient in enumerate(update.history):
            row[Column.HISTORY_0 + (kept - 1 - age) % HISTORY_SLOTS] = coefficient
        row[Column.KEEP_SLOT] = -1
        row[Column.GUIDANCE_SCALE] = guidance_scale
        row[Column.TIMESTEP] = timestep
        if update.keep is not None:
            row[Column.KEEP_SLOT] = kept % HISTORY_SLOTS
            row[Column.KEEP_LATENTS], row[Column.KEEP_NOISE] = update.keep
            kept += 1
    return table.astype(np.float32)


def device_table(table: Float32Array) -> Float32Array:
    """The table as the kernels read it: the row after the last is there to be read, and zeros."""
    return np.vstack([table, np.zeros((1, len(Column)), np.float32)])


def updated_latents(
    latents: Float32Array, noise: Float32Array, history: Float32Array, row: Float32Array
) -> Float32Array:
    """Apply one row of the coefficient table; keeps in history what the row says.

    latents, noise: [images, 4, h, w] float32. history: [HISTORY_SLOTS, images, 4, h, w], written.
    """
    new: Float32Array = row[Column.LATENTS] * latents + row[Column.NOISE] * noise
    for slot in range(HISTORY_SLOTS):
        if row[Column.HISTORY_0 + slot]:
            new += row[Column.HISTORY_0 + slot] * history[slot]
    if row[Column.KEEP_SLOT] >= 0:
        kept = row[Column.KEEP_LATENTS] * latents + row[Column.KEEP_NOISE] * noise
        history[int(row[Column.KEEP_SLOT])] = kept
    return new
