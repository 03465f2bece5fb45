"""Noise schedule: timesteps, stages and the scheduler update as one table of coefficients.

Every supported scheduler is linear in the latents, the current noise prediction and up to three
kept earlier ones, so one row of numbers per step says everything about a step. The host applies a
row with numpy; the GPU kernels read the same rows from device memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

from engines.bundle.manifest import NoiseSchedule

HISTORY_SLOTS = 3

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


class Scheduler(StrEnum):
    """How latents move from one noise level to the next."""

    DDIM = "ddim"
    PNDM = "pndm"


class Stage(Enum):
    """Which model predicts the noise of a step (paper, section 3.3)."""

    SCENE = "scene"
    FUSION = "fusion"
    SUBJECT = "subject"


class Column(IntEnum):
    """Columns of the coefficient table, one float32 row of 8 per step.

    new latents = LATENTS * latents + NOISE * noise + sum over slots of HISTORY_k * history[k];
    afterwards the noise is kept in history[KEEP_SLOT], unless KEEP_SLOT is -1.
    """

    LATENTS = 0
    NOISE = 1
    HISTORY_0 = 2
    HISTORY_1 = 3
    HISTORY_2 = 4
    KEEP_SLOT = 5
    GUIDANCE_SCALE = 6
    TIMESTEP = 7


@dataclass(frozen=True, kw_only=True)
class StageBoundaries:
    """Inclusive last step of the scene and of the fusion stage (the released script's numbers).

    start_merge_step=-1 starts with fusion; start_merge_step >= final_step has no fusion step.
    """

    start_merge_step: int
    final_step: int

    @classmethod
    def from_fractions(cls, alpha: float, beta: float, steps: int) -> StageBoundaries:
        """Scene while step < alpha * steps, fusion while step < beta * steps (section 3.3)."""
        first_at_or_after = [int(np.ceil(round(f * steps, 9))) for f in (alpha, beta)]
        return cls(start_merge_step=first_at_or_after[0] - 1, final_step=first_at_or_after[1] - 1)

    def stage(self, step: int) -> Stage:
        """The stage of a step, counted from 0."""
        if step <= self.start_merge_step:
            return Stage.SCENE
        if step <= self.final_step:
            return Stage.FUSION
        return Stage.SUBJECT


def timesteps_of(
    scheduler: Scheduler, schedule: NoiseSchedule, num_inference_steps: int
) -> list[int]:
    """The descending list of timesteps.

    "leading" spacing with the schedule's offset, as Stable Diffusion 1.5 configures it. PNDM
    evaluates the second timestep twice (its Runge-Kutta-free start), hence one step more.
    """
    ratio = schedule.num_train_timesteps // num_inference_steps
    ascending = [i * ratio + schedule.steps_offset for i in range(num_inference_steps)]
    if scheduler is Scheduler.PNDM:
        ascending = [*ascending[:-1], *ascending[-2:-1], ascending[-1]]
    return ascending[::-1]


@dataclass(frozen=True)
class Update:
    """new latents = latents * old latents + noise * prediction + sum of history[age] * kept[age].

    history[0] weighs the prediction kept last, history[1] the one before it, and so on.
    """

    latents: float
    noise: float
    history: tuple[float, ...] = ()
    keep: bool = False


def coefficient_table(
    scheduler: Scheduler, schedule: NoiseSchedule, num_inference_steps: int, guidance_scale: float
) -> Float32Array:
    """One row per step, [steps, 8] float32, columns as in Column; computed in float64.

    The kept predictions live in a ring of HISTORY_SLOTS slots, so no step ever moves one.
    """
    timesteps = timesteps_of(scheduler, schedule, num_inference_steps)
    updates = _UPDATES[scheduler](schedule, timesteps, num_inference_steps)
    table = np.zeros((len(timesteps), len(Column)), np.float64)
    kept = 0
    for row, timestep, update in zip(table, timesteps, updates, strict=True):
        row[Column.LATENTS], row[Column.NOISE] = update.latents, update.noise
        for age, coefficient in enumerate(update.history):
            row[Column.HISTORY_0 + (kept - 1 - age) % HISTORY_SLOTS] = coefficient
        row[Column.KEEP_SLOT] = kept % HISTORY_SLOTS if update.keep else -1
        row[Column.GUIDANCE_SCALE] = guidance_scale
        row[Column.TIMESTEP] = timestep
        kept += update.keep
    return table.astype(np.float32)


def device_table(table: Float32Array) -> Float32Array:
    """The table as the kernels read it: the row after the last is there to be read, and zeros."""
    return np.vstack([table, np.zeros((1, len(Column)), np.float32)])


def _ddim_updates(schedule: NoiseSchedule, timesteps: list[int], steps: int) -> list[Update]:
    """DDIM with eta 0 (Song et al. 2021, Eq. 12)."""
    return [
        Update(*_move(schedule, t, t - schedule.num_train_timesteps // steps)) for t in timesteps
    ]


def _pndm_updates(schedule: NoiseSchedule, timesteps: list[int], steps: int) -> list[Update]:
    """PLMS without Runge-Kutta steps (Liu et al. 2022, Eq. 9 and 12), as released.

    Step 1 repeats step 0 with the mean of both predictions, from the latents before step 0. Those
    are not kept: x0 -> a x0 + b (e0 + e1) / 2 is the same as x1 + b (e1 - e0) / 2.
    """
    ratio = schedule.num_train_timesteps // steps
    updates = []
    for step, timestep in enumerate(timesteps):
        if step == 1:
            _, noise = _move(schedule, timesteps[0], timesteps[0] - ratio)
            updates.append(Update(1.0, noise / 2, (-noise / 2,)))
            continue
        latents, noise = _move(schedule, timestep, timestep - ratio)
        weights = _ADAMS_BASHFORTH[min(max(step - 1, 0), 3)]
        current, *history = (noise * weight for weight in weights)
        updates.append(Update(latents, current, tuple(history), keep=True))
    return updates


# Linear multistep weights by how many earlier predictions are kept, newest first.
_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)

_UPDATES = {Scheduler.DDIM: _ddim_updates, Scheduler.PNDM: _pndm_updates}


def _move(schedule: NoiseSchedule, timestep: int, previous: int) -> tuple[float, float]:
    """Coefficients of latents and noise for the move from one noise level to another."""
    alphas = schedule.alphas_cumprod()
    final = 1.0 if schedule.set_alpha_to_one else alphas[0]
    alpha, alpha_previous = alphas[timestep], alphas[previous] if previous >= 0 else final
    latents = np.sqrt(alpha_previous / alpha)
    noise = np.sqrt(1 - alpha_previous) - latents * np.sqrt(1 - alpha)
    return float(latents), float(noise)


def updated_latents(
    latents: Float32Array, noise: Float32Array, history: Float32Array, row: Float32Array
) -> Float32Array:
    """Apply one row of the coefficient table; keeps the noise in history when the row says so.

    latents, noise: [images, 4, h, w] float32. history: [HISTORY_SLOTS, images, 4, h, w], written.
    """
    new: Float32Array = row[Column.LATENTS] * latents + row[Column.NOISE] * noise
    for slot in range(HISTORY_SLOTS):
        if row[Column.HISTORY_0 + slot]:
            new += row[Column.HISTORY_0 + slot] * history[slot]
    if row[Column.KEEP_SLOT] >= 0:
        history[int(row[Column.KEEP_SLOT])] = noise
    return new
