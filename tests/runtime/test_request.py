"""Requests that cannot be drawn are refused where they are made."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import Request, RequestError, Stage
from runtime.method.schedule import StageBoundaries


def even(steps: int) -> list[float]:
    """The shares behind evenly spaced steps."""
    return [step / steps for step in range(steps)]


def request(**fields: Any) -> Request:
    return Request(**({"prompt": "a man <|image|>", "references": ["him.png"]} | fields))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"height": 500}, "multiple of 64.*nearest is 512"),
        ({"width": 0}, "multiple of 64"),
        ({"num_inference_steps": 0}, "from 1 to 999"),
        ({"num_inference_steps": True}, "whole number"),
        ({"alpha": 0.6, "beta": 0.3}, "alpha <= beta"),
        ({"beta": float("nan")}, "alpha and beta"),
        ({"alpha": "0.3"}, "alpha and beta"),
        ({"beta": None}, "alpha and beta"),
        ({"guidance_scale": 1}, "above 1"),
        ({"guidance_scale": float("inf")}, "above 1"),
        ({"seed": 2**32}, "seed must be from 0"),
        ({"num_images": 17}, "from 1 to 16"),
        ({"scheduler": "euler"}, "'ddim', 'ddim-trailing', 'pndm', 'plms2'"),
        ({"guidance_rule": "mine"}, "'paper', 'released', 'fastcomposer'"),
        ({"guidance_rule": "fastcomposer", "final_step": 6}, "has none; leave final_step out"),
        ({"fusion": "max"}, "'saliency', 'addition'"),
        ({"output_type": "pt"}, "'pil', 'np', 'latent'"),
        ({"start_merge_step": -2}, "from -1"),
        ({"references": "him.png"}, "must be a list"),
        ({"latents": np.full((1, 4, 8, 8), np.nan, np.float32)}, "NaN or infinity"),
        ({"latents": np.zeros((4, 8, 8), np.float32)}, r"\[1, channels, h, w\]"),
        ({"latents": np.zeros((1, 4, 9, 8), np.float32)}, "multiple of 64"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32), "height": 128}, "leave height out"),
        ({"latents": np.zeros((1, 4, 8, 8), object)}, r"got object \[1, 4, 8, 8\]"),
        ({"latents": np.zeros((1, 4, 8, 8), bool)}, "got bool"),
        ({"latents": [[1], [1, 2]]}, "array of numbers"),
        ({"latents": np.full((1, 4, 8, 8), 1e300)}, "finite in float32"),
        ({"latents": np.zeros((2, 4, 8, 8), np.float32)}, "num_images first"),
        ({"prompt": None}, "must be text"),
        ({"negative_prompt": 3}, "must be text"),
        ({"references": b"him.png"}, "must be a list"),
        ({"references": [5]}, "reference 1 must be a path.*got int"),
        ({"references": ["him.png", None]}, "reference 2 must be a path"),
        ({"references": [np.zeros((3, 3))]}, r"uint8 \[h, w, 3\], got float64 \[3, 3\]"),
        ({"saliency": 1}, "True or False"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": 1.0}, "whole number"),
        ({"height": 10**400}, "multiple of 64.*nearest is 4096"),
        ({"width": 8192}, "up to 4096"),
        ({"height": True}, "whole number"),
        ({"guidance_scale": 10**400}, "above 1"),
        ({"guidance_scale": float("nan")}, "above 1"),
        ({"guidance_scale": "5"}, "above 1"),
        ({"alpha": -0.1}, "alpha <= beta"),
        ({"beta": 1.1}, "alpha <= beta"),
        ({"num_inference_steps": 1000}, "from 1 to 999"),
        ({"reference_resolution": 0}, "from 1 to 4096"),
    ],
)
def test_a_bad_field_says_what_was_expected(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        request(**fields)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_a_share_written_as_a_decimal_is_taken_as_it_is_written(a: int, b: int, steps: int) -> None:
    """0.14 * 50 is 7.000000000000001 in floating point, and seven steps all the same."""
    alpha, beta = sorted((a, b))
    boundaries = request(alpha=alpha / 1000, beta=beta / 1000).boundaries(even(steps))
    stages = [boundaries.stage(step) for step in range(steps)]
    ends = [math.ceil(Fraction(share, 1000) * steps) for share in (alpha, beta)]
    assert [stages.count(each) for each in Stage] == [ends[0], ends[1] - ends[0], steps - ends[1]]


@pytest.mark.parametrize(
    ("alpha", "beta", "steps", "expected"),
    [
        (0.14, 0.28, 50, (6, 13)),
        (0.28, 0.56, 25, (6, 13)),
        (0.0, 0.0, 5, (-1, -1)),
        (1, 1, 5, (4, 4)),
    ],
)
def test_a_stage_does_not_get_a_step_of_float_noise(
    alpha: float, beta: float, steps: int, expected: tuple[int, int]
) -> None:
    found = StageBoundaries.from_fractions(alpha, beta, even(steps))
    assert (found.start_merge_step, found.final_step) == expected


@settings(derandomize=True, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 100))
def test_stages_come_in_order_and_follow_the_fractions(a: float, b: float, steps: int) -> None:
    alpha, beta = sorted((a, b))
    boundaries = request(alpha=alpha, beta=beta).boundaries(even(steps))
    stages = [boundaries.stage(step) for step in range(steps)]
    assert stages == sorted(stages, key=list(Stage).index)
    # A share of the steps is rounded up, after rounding off float noise at the ninth digit.
    assert abs(stages.count(Stage.SCENE) - alpha * steps) < 1 + 1e-6


def test_the_released_step_numbers_win_over_the_fractions() -> None:
    boundaries = request(start_merge_step=15, final_step=30).boundaries(even(50))
    stages = [boundaries.stage(step) for step in range(50)]
    assert [stages.count(stage) for stage in Stage] == [16, 15, 19]


def test_one_step_number_wins_alone() -> None:
    boundaries = request(final_step=40).boundaries(even(50))
    stages = [boundaries.stage(step) for step in range(50)]
    assert [stages.count(stage) for stage in Stage] == [15, 26, 9]


def test_numpys_numbers_become_pythons() -> None:
    made = request(seed=np.uint32(2**32 - 1), num_inference_steps=np.int8(100), height=np.int16(64))
    assert made.seed is not None
    assert made.seed + 1 == 2**32
    assert 1000 // made.num_inference_steps == 10
    assert type(made.height) is int
    assert type(request(guidance_scale=np.float32(5)).guidance_scale) is float


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_a_request_does_not_change_with_what_it_was_made_from(dtype: str) -> None:
    latents, references = np.zeros((1, 4, 8, 8), dtype), ["him.png"]
    made = request(latents=latents, references=references)
    latents[:], references[:] = 7, []
    assert made.latents is not None
    assert made.latents.dtype == np.float32
    assert not made.latents.any()
    assert list(made.references) == ["him.png"]
    with pytest.raises(ValueError, match="read-only"):
        made.latents[:] = 1


def test_the_papers_fractions_split_fifty_steps_15_15_20() -> None:
    boundaries = request().boundaries(even(50))
    stages = [boundaries.stage(step) for step in range(50)]
    assert [stages.count(stage) for stage in Stage] == [15, 15, 20]
