"""Guidance and scheduler update over whole trajectories, against the papers' own statements."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from engines.guides import SDM_ALONE, SDM_GUIDES, TDM_GUIDE, GuidanceRule, Guide
from kernels import table
from runtime.gpu.kernels import Model
from runtime.method.schedule import (
    HISTORY_SLOTS,
    Column,
    coefficient_table,
    device_table,
    timesteps_of,
)
from runtime.method.solvers import Scheduler
from tests.kernels.trial import BY_NAME, SCALE, SCHEDULE, STEPS, launched, roles
from tests.references import guidance as guidance_reference
from tests.references.scheduler import Steps

GUIDED: dict[Guide, Callable[..., Any]] = {
    TDM_GUIDE: guidance_reference.tdm_guided,
    SDM_GUIDES[GuidanceRule.PAPER]: guidance_reference.sdm_guided_paper,
    SDM_GUIDES[GuidanceRule.RELEASED]: guidance_reference.sdm_guided_released,
}


@pytest.mark.parametrize("scheduler", [Scheduler.DDIM, Scheduler.PNDM, Scheduler.DPMPP_2M])
@pytest.mark.parametrize("guide", GUIDED, ids=["tdm", "sdm paper", "sdm released"])
def test_a_trajectory_is_the_papers(guide: Guide, scheduler: Scheduler) -> None:
    images, shape = 2, (2, 4, 8, 24)
    generator = torch.Generator().manual_seed(0)
    rows = coefficient_table(scheduler, SCHEDULE, STEPS, SCALE)
    coefficients = torch.from_numpy(device_table(rows))
    timesteps = timesteps_of(scheduler, SCHEDULE, STEPS)
    spacing = SCHEDULE.num_train_timesteps // STEPS
    steps = Steps(SCHEDULE.alphas_cumprod(), timesteps, spacing)
    step_of = {
        Scheduler.DDIM: steps.ddim,
        Scheduler.PNDM: steps.pndm,
        Scheduler.DPMPP_2M: steps.dpmpp_2m,
    }[scheduler]

    latents = torch.randn(shape, generator=generator)
    expected = latents.double().numpy()
    engine_latents = torch.full(shape, float("nan"), dtype=torch.float16)
    history = torch.full((HISTORY_SLOTS, *shape), float("nan"))
    delta = torch.full(shape, float("nan"))
    clock, faults = torch.zeros(2, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    timestep = torch.full((images,), float("nan"))
    for step in range(len(timesteps)):
        passes = torch.randn((len(guide.passes), *shape), generator=generator).half()
        launched(
            "guided_step",
            (-(-latents[0].numel() // BY_NAME["guided_step"].constants["BLOCK"]), images),
            *(passes, latents, engine_latents, history, delta),
            *(coefficients, clock, timestep, faults, 0),
            *roles(guide),
            *(0, latents[0].numel()),
        )
        noise, _ = GUIDED[guide](*passes.double().numpy(), SCALE)
        expected = step_of(step, expected, noise)
        assert clock.tolist() == [step + 1, 0]
        assert timestep.tolist() == [[*timesteps, 0][step + 1]] * images
        assert not faults.any()
        # Float32 coefficients and sums, some 10 roundings a step of values up to about 100.
        np.testing.assert_allclose(
            latents.numpy(), expected, rtol=0, atol=10 * (step + 1) * 100 * 2.0**-24
        )
        assert torch.equal(engine_latents, latents.half())
        assert delta.isnan().all()


def test_kept_guidance_is_added_to_a_later_pass_alone() -> None:
    images, shape = 2, (2, 4, 8, 24)
    generator = torch.Generator().manual_seed(1)
    rows = device_table(coefficient_table(Scheduler.DDIM, SCHEDULE, STEPS, SCALE))
    latents = torch.randn(shape, generator=generator)
    engine_latents = torch.full(shape, float("nan"), dtype=torch.float16)
    history = torch.full((HISTORY_SLOTS, *shape), float("nan"))
    delta = torch.full(shape, float("nan"))
    clock, faults = torch.zeros(2, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    guide = SDM_GUIDES[GuidanceRule.PAPER]
    passes = torch.randn((3, *shape), generator=generator).half()
    alone = torch.randn(shape, generator=generator).half()
    before = latents.double().numpy()
    for prediction, how, use in (
        (passes, guide, table.DELTA_KEPT), (alone, SDM_ALONE, table.DELTA_ADDED),
    ):  # fmt: skip
        launched(
            "guided_step",
            (-(-latents[0].numel() // BY_NAME["guided_step"].constants["BLOCK"]), images),
            *(prediction, latents, engine_latents, history, delta, torch.from_numpy(rows)),
            *(clock, torch.zeros(images), faults, 1),
            *roles(how),
            *(use.value, latents[0].numel()),
        )
    null, text, augmented = passes.double().numpy()
    added = null + SCALE * (augmented - text) - augmented
    np.testing.assert_allclose(delta.numpy(), added, rtol=0, atol=8 * 60 * 2.0**-24)
    steps = Steps(SCHEDULE.alphas_cumprod(), timesteps_of(Scheduler.DDIM, SCHEDULE, STEPS), 125)
    expected = steps.ddim(0, before, augmented + added)
    expected = steps.ddim(1, expected, alone.double().numpy() + added)
    # Two steps of some 10 float32 roundings of values up to about 100.
    np.testing.assert_allclose(latents.numpy(), expected, rtol=0, atol=20 * 100 * 2.0**-24)


def test_the_columns_are_the_schedules() -> None:
    assert table.LATENTS.value == Column.LATENTS
    assert table.NOISE.value == Column.NOISE
    assert table.HISTORY_0.value == Column.HISTORY_0
    assert table.KEEP_SLOT.value == Column.KEEP_SLOT
    assert table.GUIDANCE_SCALE.value == Column.GUIDANCE_SCALE
    assert table.TIMESTEP.value == Column.TIMESTEP
    assert table.KEEP_LATENTS.value == Column.KEEP_LATENTS
    assert table.KEEP_NOISE.value == Column.KEEP_NOISE
    assert table.COLUMNS.value == len(Column)
    assert table.HISTORY_SLOTS.value == HISTORY_SLOTS


def test_the_models_are_the_runtimes() -> None:
    assert [table.TDM.value, table.SDM.value, table.DECODER.value] == list(Model)
