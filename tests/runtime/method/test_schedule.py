"""Other noise schedules than Stable Diffusion 1.5's, and very many steps, against diffusers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle.manifest import NoiseSchedule
from runtime import Scheduler
from runtime.method.schedule import (
    HISTORY_SLOTS,
    Column,
    StageBoundaries,
    coefficient_table,
    timesteps_of,
    updated_latents,
)
from tests.paths import GOLDEN

SCHEDULERS = np.load(GOLDEN / "schedulers.npz")
ORACLES: dict[Scheduler, Any] = {Scheduler.DDIM: DDIMScheduler, Scheduler.PNDM: PNDMScheduler}
BetaSchedule = Literal["scaled_linear", "linear"]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(ORACLES)),
    st.sampled_from([1, 2, 3, 4, 7, 33, 50, 143, 333]),
    st.sampled_from(["scaled_linear", "linear"]),
    st.integers(0, 1),
    st.booleans(),
)
def test_any_schedule_moves_latents_as_diffusers_does(
    scheduler: Scheduler,
    steps: int,
    beta_schedule: BetaSchedule,
    steps_offset: int,
    set_alpha_to_one: bool,  # noqa: FBT001
) -> None:
    schedule = NoiseSchedule(
        beta_schedule=beta_schedule, steps_offset=steps_offset, set_alpha_to_one=set_alpha_to_one
    )
    extra = {"clip_sample": False} if scheduler is Scheduler.DDIM else {"skip_prk_steps": True}
    oracle = ORACLES[scheduler](
        beta_start=0.00085, beta_end=0.012, beta_schedule=beta_schedule, steps_offset=steps_offset,
        set_alpha_to_one=set_alpha_to_one, **extra,
    )  # fmt: skip
    oracle.set_timesteps(steps)
    assert timesteps_of(scheduler, schedule, steps) == oracle.timesteps.tolist()
    random = np.random.RandomState(steps)
    latents = random.standard_normal((1, 4, 2, 2)).astype(np.float32)
    expected = torch.from_numpy(latents)
    history = np.zeros((HISTORY_SLOTS, *latents.shape), np.float32)
    table = coefficient_table(scheduler, schedule, steps, 5.0)
    for row, timestep in zip(table, oracle.timesteps, strict=True):
        noise = random.standard_normal(latents.shape).astype(np.float32)
        latents = updated_latents(latents, noise, history, row)
        expected = oracle.step(torch.from_numpy(noise), timestep, expected).prev_sample
    # diffusers keeps its coefficients in float32: about 1e-6 a step, up to 333 steps.
    np.testing.assert_allclose(latents, expected.numpy(), rtol=5e-4, atol=5e-4 * abs(latents).max())


@pytest.mark.parametrize("scheduler", list(ORACLES))
@pytest.mark.parametrize("steps", [3, 10, 20, 25, 30, 50])
def test_timesteps_are_the_released_ones(scheduler: Scheduler, steps: int) -> None:
    expected = SCHEDULERS[f"{scheduler}{steps}.timesteps"].tolist()
    assert timesteps_of(scheduler, NoiseSchedule(), steps) == expected


def test_noise_levels_are_shared_and_cannot_be_changed() -> None:
    levels = NoiseSchedule().alphas_cumprod()
    assert NoiseSchedule().alphas_cumprod() is levels
    with pytest.raises(ValueError, match="read-only"):
        levels[0] = 1.0
    assert NoiseSchedule(beta_schedule="linear").alphas_cumprod()[500] != levels[500]


def test_noise_levels_are_the_released_ones() -> None:
    # The released code accumulates a product of 1000 float32 factors.
    np.testing.assert_allclose(
        NoiseSchedule().alphas_cumprod(), SCHEDULERS["alphas_cumprod"], rtol=1000 * 6e-8
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.sampled_from(list(Scheduler)), st.integers(1, 999))
def test_every_accepted_step_count_has_finite_coefficients_and_descends(
    scheduler: Scheduler, steps: int
) -> None:
    timesteps = timesteps_of(scheduler, NoiseSchedule(), steps)
    assert timesteps == sorted(timesteps, reverse=True)
    assert 0 <= timesteps[-1] <= timesteps[0] <= 999
    table = coefficient_table(scheduler, NoiseSchedule(), steps, 5.0)
    assert np.isfinite(table).all()
    assert table[:, Column.TIMESTEP].tolist() == timesteps


def test_a_share_that_is_less_by_rounding_alone_is_not_below() -> None:
    """1 - 900 / 1000 is less than 0.1 in floating point, and 3 * 0.1 is more than 0.3."""
    below = StageBoundaries.from_fractions(0.1, 3 * 0.1, [0.0, 1 - 900 / 1000, 0.2, 0.3, 0.4])
    assert below == StageBoundaries(start_merge_step=0, final_step=2)


@pytest.mark.parametrize(
    ("last_steps", "expected"),
    [((1, 3), {2, 4}), ((-1, 3), {4}), ((2, 2), {3}), ((1, 9), {2}), ((9, 9), set())],
)
def test_every_stage_but_the_first_starts_anew(
    last_steps: tuple[int, int], expected: set[int]
) -> None:
    start_merge_step, final_step = last_steps
    boundaries = StageBoundaries(start_merge_step=start_merge_step, final_step=final_step)
    assert boundaries.starts(6) == expected
