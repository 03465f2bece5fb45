"""What a solver is: a grid of noise levels, and the update of each of its steps."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.bundle.manifest import NoiseSchedule

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The noise levels of a run, one entry per step, from noise to picture.

    timesteps: what the U-Nets are told. alphas, targets: share of the picture's variance in the
    latents before and after the step (alphas_cumprod). shares: how much of the trajectory lies
    behind the step, from 0 to below 1, by its noise level; what alpha and beta are compared with.
    """

    timesteps: tuple[int, ...]
    alphas: Float64Array
    targets: Float64Array
    shares: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True)
class Update:
    """new latents = latents * old latents + noise * prediction + sum of history[age] * kept[age].

    history[0] weighs what was kept last, history[1] what was kept before, and so on. keep: weights
    of the old latents and the prediction in what this step keeps; None for a step that keeps none.
    """

    latents: float
    noise: float
    history: tuple[float, ...] = ()
    keep: tuple[float, float] | None = None


KEEP_NOISE = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Solver:
    """grid: the noise levels of a run of so many steps.

    updates: one per step of a grid. The second argument names the steps at which another stage
    begins, and with it another prediction: nothing kept before such a step is of use to it.
    """

    grid: Callable[[NoiseSchedule, int], Grid]
    updates: Callable[[Grid, Collection[int]], list[Update]]


def leading(schedule: NoiseSchedule, steps: int) -> Grid:
    """Equal spacing from the last timestep up, as Stable Diffusion 1.5 is configured: 981 ... 1."""
    ratio = schedule.num_train_timesteps // steps
    timesteps = [i * ratio + schedule.steps_offset for i in reversed(range(steps))]
    return _evenly_spaced(schedule, timesteps, final_alpha(schedule))


def trailing(schedule: NoiseSchedule, steps: int) -> Grid:
    """Equal spacing from the first timestep down: 999 ..., the last step goes where DDIM's does."""
    return _evenly_spaced(schedule, _trailing_timesteps(schedule, steps), final_alpha(schedule))


def trailing_to_zero(schedule: NoiseSchedule, steps: int) -> Grid:
    """Trailing, from each level to the next one, and at last to no noise at all."""
    timesteps = _trailing_timesteps(schedule, steps)
    grid = _evenly_spaced(schedule, timesteps, 1.0)
    return Grid(
        timesteps=grid.timesteps,
        alphas=grid.alphas,
        targets=np.append(grid.alphas[1:], 1.0),
        shares=grid.shares,
    )


def final_alpha(schedule: NoiseSchedule) -> float:
    """Where DDIM and PNDM end: at no noise, or at the least that the model was trained on."""
    return 1.0 if schedule.set_alpha_to_one else float(schedule.alphas_cumprod()[0])


def move(alpha: float, target: float) -> tuple[float, float]:
    """Weights of latents and noise in the move between two levels (Song et al. 2021, Eq. 12)."""
    latents = np.sqrt(target / alpha)
    noise = np.sqrt(1 - target) - latents * np.sqrt(1 - alpha)
    return float(latents), float(noise)


def _trailing_timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    total = schedule.num_train_timesteps
    descending = np.arange(total, 0, -total / steps)[:steps]
    return [int(timestep) - 1 for timestep in descending.round()]


def _evenly_spaced(schedule: NoiseSchedule, timesteps: list[int], final: float) -> Grid:
    """Each step goes a whole spacing down, as diffusers does where it does not divide evenly."""
    alphas = schedule.alphas_cumprod()
    ratio = schedule.num_train_timesteps // len(timesteps)
    # A timestep the model does not know is refused by name later (runtime.preparation).
    known = np.minimum(timesteps, schedule.num_train_timesteps - 1)
    previous = [timestep - ratio for timestep in known]
    return Grid(
        timesteps=tuple(timesteps),
        alphas=alphas[known],
        targets=np.array([alphas[t] if t >= 0 else final for t in previous]),
        shares=tuple(step / len(timesteps) for step in range(len(timesteps))),
    )
