"""Presets: what they decide, what they leave, and what they cost."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.manifest import NoiseSchedule
from engines.contract import Component
from engines.guides import SDM_ALONE, pass_counts
from runtime import FaceDiffuser, GuidanceRule, Preset, Request, RequestError, Scheduler
from runtime.method.guidance import SubjectGuidance, subject_guidance
from runtime.preparation import kind_of, planned_steps
from runtime.presets import PRESETS, Defaults
from tests.paths import GOLDEN

FULL, KEPT, CACHED, OFF = SubjectGuidance


def request(**changes: Any) -> Request:
    made: dict[str, Any] = {
        "prompt": "a man <|image|>", "references": [GOLDEN / "refs" / "man1.png"], "seed": 3,
        "height": 64, "width": 64, "output_type": "latent",
    }  # fmt: skip
    return Request(**(made | changes))


def test_a_request_without_a_preset_is_the_papers() -> None:
    made = request()
    assert made.preset is Preset.QUALITY
    assert (made.num_inference_steps, made.scheduler) == (50, Scheduler.DDIM)
    assert (made.guidance_rule, made.guidance_every) == (GuidanceRule.PAPER, 1)
    assert made.guidance_until == 1.0


@pytest.mark.parametrize("preset", Preset)
def test_a_preset_decides_what_nobody_said(preset: Preset) -> None:
    made = request(preset=str(preset))
    for field in fields(Defaults):
        assert getattr(made, field.name) == getattr(PRESETS[preset], field.name)


@pytest.mark.parametrize("preset", Preset)
def test_a_field_that_was_given_wins_even_with_another_presets_value(preset: Preset) -> None:
    for other in Preset:
        for field in fields(Defaults):
            value = getattr(PRESETS[other], field.name)
            made = request(preset=preset, **{field.name: value})
            assert getattr(made, field.name) == value
            assert getattr(replace(made, seed=4), field.name) == value


def test_a_preset_that_there_is_not_is_refused() -> None:
    with pytest.raises(RequestError, match="'quality', 'balanced', 'fast'"):
        request(preset="draft")


def test_guidance_may_not_end_before_the_fusion_does() -> None:
    with pytest.raises(RequestError, match=r"from beta \(0.6\) to 1, got 0.5"):
        request(guidance_until=0.5)
    with pytest.raises(RequestError, match="guidance_every must be from 1 to 8"):
        request(guidance_every=9)


def test_the_subject_stage_begins_with_all_passes_and_ends_without_guidance() -> None:
    assert subject_guidance([0.6, 0.7, 0.8, 0.9], 1, 1.0) == [FULL] * 4
    assert subject_guidance([0.6, 0.7, 0.8, 0.9], 2, 1.0) == [KEPT, CACHED] * 2
    assert subject_guidance([0.6, 0.7, 0.8, 0.9], 2, 0.8) == [KEPT, CACHED, OFF, OFF]
    # 1 - 900 / 1000 is a little less than 0.1 in floating point.
    assert subject_guidance([0.0, 1 - 900 / 1000], 1, 0.1) == [FULL, OFF]


@pytest.mark.parametrize("steps", [4, 5, 8, 10, 50])
@pytest.mark.parametrize("until", [0.6, 0.8, 1.0])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_what_is_prepared_covers_every_step(steps: int, until: float, every: int) -> None:
    made = request(num_inference_steps=steps, guidance_every=every, guidance_until=until)
    plan = planned_steps(made, NoiseSchedule())
    subject = plan.guidance[plan.boundaries.final_step + 1 :]
    assert set(subject) <= kind_of(made, 64).guidance


def test_plans_have_a_profile_for_the_augmented_pass_alone() -> None:
    assert len(SDM_ALONE.passes) in pass_counts(Component.SDM_UNET)
    assert pass_counts(Component.SDM_UNET) == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "evaluations"),
    [
        ({"preset": "quality"}, 165),
        ({"preset": "quality", "guidance_rule": "released"}, 130),
        ({"preset": "quality", "guidance_every": 2}, 145),
        ({"preset": "quality", "guidance_until": 0.6}, 125),
        ({"preset": "balanced"}, 48),
        ({"preset": "fast"}, 24),
    ],
)
def test_a_picture_tells_what_it_cost_and_every_setting_as_it_was(
    golden_bundle: Path, changes: dict[str, Any], evaluations: int
) -> None:
    runs: list[int] = []
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        pool = opened._drawn_on._engines  # type: ignore[attr-defined]
        run = pool.run

        def counted(component: Component, inputs: Any, shape: Any, where: str = "") -> Any:
            if component in (Component.TDM_UNET, Component.SDM_UNET):
                runs.append(shape[0])
            return run(component, inputs, shape, where)

        pool.run = counted
        result = opened.generate(request(**changes))
    assert sum(runs) == result.evaluations == evaluations
    told = result.metadata(0)["settings"]
    assert told["preset"] == changes["preset"]
    assert told["num_inference_steps"] == PRESETS[changes["preset"]].num_inference_steps
    assert np.isfinite(result.array).all()


def test_cached_guidance_moves_the_picture_little_and_its_absence_more(
    golden_bundle: Path,
) -> None:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        whole, cached, off = (
            opened.generate(request(num_inference_steps=20, **changes)).array
            for changes in ({}, {"guidance_every": 2}, {"guidance_until": 0.6})
        )
    moved = [np.linalg.norm(each - whole) / np.linalg.norm(whole) for each in (cached, off)]
    assert 0 < moved[0] < moved[1]


def test_pndm_with_large_steps_is_drawn_and_warned_of(golden_bundle: Path) -> None:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        few = opened.generate(request(scheduler="pndm", num_inference_steps=20))
        many = opened.generate(request(scheduler="pndm"))
    (warning,) = few.warnings
    assert "0.491 with 20 steps" in warning
    assert "plms2" in warning
    assert many.warnings == ()
