"""Every solver against diffusers' own, on a made-up model whose noise follows from the latents."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from engines.bundle.manifest import NoiseSchedule
from runtime import Scheduler
from runtime.method.schedule import (
    HISTORY_SLOTS,
    StageBoundaries,
    coefficient_table,
    timesteps_of,
    updated_latents,
)
from runtime.method.solvers import SOLVERS

# diffusers' schedulers are not typed.
_DDIM: Any = DDIMScheduler
_PNDM: Any = PNDMScheduler
_DPM: Any = DPMSolverMultistepScheduler
_UNIPC: Any = UniPCMultistepScheduler

# diffusers makes NumPy arrays of tensors in a way that NumPy 2 is to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NUMBERS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD15 = {**NUMBERS, "steps_offset": 1, "set_alpha_to_one": False}
NOISE_LEVELS = NoiseSchedule()
_MIXING = np.random.RandomState(0).standard_normal((8, 8)) * 0.3


class SecondOrderPlms:
    """diffusers' move between two levels, by the mean that the second order takes."""

    def __init__(self) -> None:
        self._plms: Any = _PNDM(**SD15, skip_prk_steps=True)
        self.ets: list[Any] = []

    def set_timesteps(self, steps: int) -> None:
        self._plms.set_timesteps(steps)
        self.timesteps = torch.unique(self._plms.timesteps).flip(0)

    def step(self, noise: Any, timestep: Any, sample: Any) -> Any:
        self.ets = [*self.ets[-1:], noise]
        mixed = noise if len(self.ets) == 1 else (3 * noise - self.ets[0]) / 2
        previous = timestep - 1000 // len(self.timesteps)
        moved = self._plms._get_prev_sample(sample, timestep, previous, mixed)
        return SimpleNamespace(prev_sample=moved)


def oracle(scheduler: Scheduler) -> Any:
    trailing = {"timestep_spacing": "trailing"}
    match scheduler:
        case Scheduler.DDIM:
            return _DDIM(**SD15, clip_sample=False)
        case Scheduler.DDIM_TRAILING:
            return _DDIM(**SD15, clip_sample=False, **trailing)
        case Scheduler.PNDM:
            return _PNDM(**SD15, skip_prk_steps=True)
        case Scheduler.PLMS2:
            return SecondOrderPlms()
        case Scheduler.DPMPP_2M:
            return _DPM(**NUMBERS, **trailing)
        case Scheduler.DPMPP_2M_KARRAS:
            return _DPM(**NUMBERS, use_karras_sigmas=True)
        case Scheduler.UNIPC_2:
            return _UNIPC(**NUMBERS, **trailing)


def forget(theirs: Any) -> None:
    """What diffusers' schedulers keep of earlier steps, dropped."""
    for name, empty in (
        ("ets", []), ("lower_order_nums", 0), ("last_sample", None),
        ("model_outputs", [None, None]),
    ):  # fmt: skip
        if hasattr(theirs, name):
            setattr(theirs, name, empty)


def noise_of(latents: Any) -> Any:
    return np.tanh(latents @ _MIXING) + 0.2 * latents


def relative_distance(scheduler: Scheduler, steps: int, starts: Collection[int] = ()) -> float:
    """Of our final latents from diffusers', on the same noise predictions."""
    theirs = oracle(scheduler)
    theirs.set_timesteps(steps)
    table = coefficient_table(scheduler, NOISE_LEVELS, steps, 5.0, starts)
    found = np.random.RandomState(steps).standard_normal((1, 4, 8, 8)).astype(np.float32)
    expected = torch.from_numpy(found).double()
    history = np.full((HISTORY_SLOTS, *found.shape), np.nan, np.float32)
    assert timesteps_of(scheduler, NOISE_LEVELS, steps) == theirs.timesteps.tolist()
    for step, (row, timestep) in enumerate(zip(table, theirs.timesteps, strict=True)):
        if step in starts:
            forget(theirs)
        noise = noise_of(expected.numpy())
        expected = theirs.step(torch.from_numpy(noise), timestep, expected).prev_sample
        found = updated_latents(found, noise.astype(np.float32), history, row)
    return float(np.linalg.norm(found - expected.numpy()) / np.linalg.norm(expected))


@pytest.mark.parametrize("steps", [8, 20, 50])
@pytest.mark.parametrize("scheduler", Scheduler)
def test_a_solver_is_diffusers_to_one_in_100_000(scheduler: Scheduler, steps: int) -> None:
    assert relative_distance(scheduler, steps) < 1e-5


# PNDM as released keeps its history from stage to stage.
@pytest.mark.parametrize("scheduler", [each for each in Scheduler if each is not Scheduler.PNDM])
@pytest.mark.parametrize("steps", [8, 20])
def test_a_solver_starts_anew_where_a_stage_begins(scheduler: Scheduler, steps: int) -> None:
    assert relative_distance(scheduler, steps, starts={3, 5}) < 1e-5


@pytest.mark.parametrize("scheduler", Scheduler)
def test_one_and_two_steps_are_diffusers_too(scheduler: Scheduler) -> None:
    assert relative_distance(scheduler, 1) < 1e-5
    assert relative_distance(scheduler, 2) < 1e-5


@pytest.mark.parametrize("scheduler", [Scheduler.DDIM, Scheduler.DDIM_TRAILING, Scheduler.PLMS2])
@pytest.mark.parametrize("steps", [3, 7, 8, 10, 50])
def test_on_even_grids_a_stage_takes_its_share_of_the_steps(
    scheduler: Scheduler, steps: int
) -> None:
    shares = SOLVERS[scheduler].grid(NOISE_LEVELS, steps).shares
    boundaries = StageBoundaries.from_fractions(0.3, 0.6, shares)
    expected = [int(np.ceil(round(f * steps, 9))) - 1 for f in (0.3, 0.6)]
    assert [boundaries.start_merge_step, boundaries.final_step] == expected


def test_karras_levels_give_the_stages_their_noise_levels_not_their_steps() -> None:
    grid = SOLVERS[Scheduler.DPMPP_2M_KARRAS].grid(NOISE_LEVELS, 20)
    boundaries = StageBoundaries.from_fractions(0.3, 0.6, grid.shares)
    assert grid.timesteps[boundaries.start_merge_step] > 699 >= grid.timesteps[
        boundaries.start_merge_step + 1
    ]  # fmt: skip
    assert grid.timesteps[boundaries.final_step] > 399 >= grid.timesteps[boundaries.final_step + 1]
    # By shares of the steps, fusion would go on to timestep 197.
    assert boundaries.final_step + 1 < 0.6 * 20
    np.testing.assert_allclose(grid.shares, [1 - (t + 1) / 1000 for t in grid.timesteps])


@pytest.mark.parametrize("scheduler", Scheduler)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_nothing_lies_behind_the_first_step_and_not_all_behind_the_last(
    scheduler: Scheduler, steps: int
) -> None:
    shares = SOLVERS[scheduler].grid(NOISE_LEVELS, steps).shares
    assert shares[0] == 0
    assert list(shares) == sorted(shares)
    assert shares[-1] < 1


def test_every_solver_has_its_own_name_in_the_registry() -> None:
    assert set(SOLVERS) == set(Scheduler)
    assert len(set(SOLVERS.values())) == len(SOLVERS)
