"""Schedule, guidance and saliency against diffusers, the released code and their own properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle.manifest import NoiseSchedule
from engines.guides import SDM_GUIDES, TDM_GUIDE
from runtime import GuidanceRule, Scheduler
from runtime.method.guidance import guided
from runtime.method.saliency import fused_by_addition, fused_by_saliency
from runtime.method.schedule import HISTORY_SLOTS, coefficient_table, timesteps_of, updated_latents
from tests.paths import GOLDEN

ORACLES: dict[Scheduler, Any] = {Scheduler.DDIM: DDIMScheduler, Scheduler.PNDM: PNDMScheduler}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(ORACLES)), st.integers(1, 100), st.integers(0, 2**32 - 1))
def test_every_step_count_moves_latents_as_diffusers_does(
    scheduler: Scheduler, steps: int, seed: int
) -> None:
    extra = {"clip_sample": False} if scheduler is Scheduler.DDIM else {"skip_prk_steps": True}
    oracle = ORACLES[scheduler](
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        set_alpha_to_one=False, **extra,
    )  # fmt: skip
    oracle.set_timesteps(steps)
    assert timesteps_of(scheduler, NoiseSchedule(), steps) == oracle.timesteps.tolist()
    random = np.random.RandomState(seed)
    latents = random.standard_normal((1, 4, 2, 2)).astype(np.float32)
    expected = torch.from_numpy(latents)
    history = np.zeros((HISTORY_SLOTS, *latents.shape), np.float32)
    table = coefficient_table(scheduler, NoiseSchedule(), steps, 5.0)
    for row, timestep in zip(table, oracle.timesteps, strict=True):
        noise = random.standard_normal(latents.shape).astype(np.float32)
        latents = updated_latents(latents, noise, history, row)
        expected = oracle.step(torch.from_numpy(noise), timestep, expected).prev_sample
    # diffusers keeps its coefficients in float32: about 1e-6 per step, up to 100 steps.
    np.testing.assert_allclose(latents, expected.numpy(), rtol=2e-4, atol=2e-4 * abs(latents).max())


@pytest.mark.parametrize("scheduler", list(ORACLES))
@pytest.mark.parametrize("steps", [10, 25])
def test_trajectories_are_the_released_ones(scheduler: Scheduler, steps: int) -> None:
    golden = np.load(GOLDEN / "schedulers.npz")
    latents = golden[f"{scheduler}{steps}.latents"]
    history = np.zeros((HISTORY_SLOTS, *latents[0].shape), np.float32)
    found = latents[0]
    table = coefficient_table(scheduler, NoiseSchedule(), steps, 5.0)
    for row, noise, expected in zip(
        table, golden[f"{scheduler}{steps}.noise"], latents[1:], strict=True
    ):
        found = updated_latents(found, noise, history, row)
        # float32 coefficients on both sides: 1e-6 per step.
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_saliency_fusion_is_the_released_one() -> None:
    golden = np.load(GOLDEN / "snf.npz")
    case = {name.removeprefix("smooth_b1."): golden[name] for name in golden}
    scale = float(case["guidance"])
    tdm = guided(np.concatenate([case["eps_tdm_null"], case["eps_tdm_text"]]), TDM_GUIDE, scale)
    released = SDM_GUIDES[GuidanceRule.RELEASED]
    sdm = guided(np.concatenate([case["eps_sdm_text"], case["eps_sdm_aug"]]), released, scale)
    noise, saliency = fused_by_saliency(tdm, sdm)
    bits = np.unpackbits(case["mask_packed"])[: case["mask_shape"].prod()]
    np.testing.assert_array_equal(saliency.mask, bits.reshape(case["mask_shape"]).astype(bool))
    np.testing.assert_allclose(noise, case["fused"], rtol=1e-5, atol=1e-5)  # one fp32 subtraction
    # exp of a sum over 4096 pixels in another order: a few 1e-6.
    np.testing.assert_allclose(saliency.tdm, case["saliency_tdm"], rtol=1e-4)
    np.testing.assert_allclose(saliency.sdm, case["saliency_sdm"], rtol=1e-4)


def test_a_tie_goes_to_the_scene() -> None:
    prediction = np.random.RandomState(0).standard_normal((2, 4, 8, 16)).astype(np.float32)
    tdm = guided(prediction, TDM_GUIDE, 5.0)
    sdm = guided(prediction[::-1], TDM_GUIDE, 5.0)
    noise, saliency = fused_by_saliency(tdm, sdm)
    assert not saliency.mask.any()
    np.testing.assert_array_equal(noise, tdm.noise)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([(8, 8), (16, 8), (8, 24)]))
def test_fused_noise_is_one_of_the_two_at_every_pixel(
    seed: int, images: int, size: tuple[int, int]
) -> None:
    random = np.random.RandomState(seed)
    rows = random.standard_normal((2, 2 * images, 4, *size)).astype(np.float32)
    tdm, sdm = (guided(each, TDM_GUIDE, 7.5) for each in rows)
    noise, saliency = fused_by_saliency(tdm, sdm)
    taken = np.where(saliency.mask[:, None], sdm.noise, tdm.noise)
    np.testing.assert_array_equal(noise, taken)
    np.testing.assert_allclose(saliency.sdm.sum((1, 2)), 1, atol=1e-5)  # fp32 sum of <= 192 terms


def test_the_papers_rule_starts_at_null_and_the_released_at_text() -> None:
    null, text, augmented = np.random.RandomState(1).standard_normal((3, 1, 4, 8, 8))
    guidance = 5 * (augmented - text)
    paper = guided(np.concatenate([null, text, augmented]), SDM_GUIDES[GuidanceRule.PAPER], 5)
    released = guided(np.concatenate([text, augmented]), SDM_GUIDES[GuidanceRule.RELEASED], 5)
    np.testing.assert_allclose(paper.noise, null + guidance, atol=1e-5)  # fp32 rounding at scale 20
    np.testing.assert_allclose(released.noise, text + guidance, atol=1e-5)  # the same


def test_addition_keeps_the_noises_scale() -> None:
    prediction = np.random.RandomState(2).standard_normal((2, 4, 8, 8)).astype(np.float32)
    one = guided(prediction, TDM_GUIDE, 5.0)
    np.testing.assert_array_equal(fused_by_addition(one, one), one.noise)
