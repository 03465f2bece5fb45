"""Requests that cannot be drawn are refused where they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Request, RequestError, Stage


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
        ({"guidance_scale": 1}, "above 1"),
        ({"guidance_scale": float("inf")}, "above 1"),
        ({"seed": 2**32}, "seed must be from 0"),
        ({"num_images": 17}, "from 1 to 16"),
        ({"scheduler": "euler"}, "'ddim', 'pndm'"),
        ({"guidance_rule": "mine"}, "'paper', 'released'"),
        ({"fusion": "max"}, "'saliency', 'addition'"),
        ({"output_type": "pt"}, "'pil', 'np', 'latent'"),
        ({"start_merge_step": -2}, "from -1"),
        ({"references": "him.png"}, "must be a list"),
        ({"latents": np.full((1, 4, 8, 8), np.nan, np.float32)}, "NaN or infinity"),
        ({"latents": np.zeros((4, 8, 8), np.float32)}, r"\[1, channels, h, w\]"),
        ({"latents": np.zeros((1, 4, 9, 8), np.float32)}, "multiple of 64"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32), "height": 128}, "leave height out"),
        ({"prompt": None}, "must be text"),
    ],
)
def test_a_bad_field_says_what_was_expected(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        request(**fields)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 100))
def test_stages_come_in_order_and_follow_the_fractions(a: float, b: float, steps: int) -> None:
    alpha, beta = sorted((a, b))
    boundaries = request(alpha=alpha, beta=beta).boundaries(steps)
    stages = [boundaries.stage(step) for step in range(steps)]
    assert stages == sorted(stages, key=list(Stage).index)
    # A share of the steps is rounded up, after rounding off float noise at the ninth digit.
    assert abs(stages.count(Stage.SCENE) - alpha * steps) < 1 + 1e-6


def test_the_released_step_numbers_win_over_the_fractions() -> None:
    boundaries = request(start_merge_step=15, final_step=30).boundaries(50)
    stages = [boundaries.stage(step) for step in range(50)]
    assert [stages.count(stage) for stage in Stage] == [16, 15, 19]


def test_the_papers_fractions_split_fifty_steps_15_15_20() -> None:
    boundaries = request().boundaries(50)
    stages = [boundaries.stage(step) for step in range(50)]
    assert [stages.count(stage) for stage in Stage] == [15, 15, 20]
