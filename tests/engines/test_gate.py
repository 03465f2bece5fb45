"""The gate's bounds are the ones that its comment derives, and its inputs cover what is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engines.bundle.manifest import Precision
from engines.contract import Component
from engines.gate import (
    BFLOAT16_PIPELINE_BOUND,
    PIPELINE_BOUNDS,
    PLAN_PIPELINE_BOUNDS,
    SIDES_MARGIN,
    Sides,
    bound_of,
    changed_sides,
    farthest,
    gate_inputs,
    gate_shapes,
    relative_l2,
)
from engines.plans.profiles import PROFILES, shape_ranges
from tests.doubles.small_bundle import DIMENSIONS

# How many roundings follow each other in a component, as engines.gate counts them.
ROUNDINGS = {
    Component.TEXT_ENCODER: 70, Component.IMAGE_ENCODER: 150, Component.FUSION_MLP: 8,
    Component.TDM_UNET: 400, Component.SDM_UNET: 400, Component.VAE_DECODER: 150,
}  # fmt: skip
HALF_ROUNDING = 2.8e-4


@pytest.mark.parametrize("component", Component)
def test_a_bound_is_twice_what_rounding_explains(component: Component) -> None:
    expected = 2 * HALF_ROUNDING * math.sqrt(ROUNDINGS[component])
    # "Rounded" is to one digit or two: a third at most.
    assert bound_of(component, Precision.FP16) == pytest.approx(expected, rel=0.3)
    # Four digits above the 6e-8 of one rounding to float32, and no more.
    assert bound_of(component, Precision.FP32) == 1e-4


@pytest.mark.parametrize("precision", Precision)
def test_a_pipelines_bound_follows_from_its_components(precision: Precision) -> None:
    """Between what passes a component's gate and three times that, by what guidance multiplies."""
    component = bound_of(Component.SDM_UNET, precision)
    assert bound_of(Component.TDM_UNET, precision) == component
    passes = component * math.sqrt(1**2 + 5**2 + 5**2)
    assert PLAN_PIPELINE_BOUNDS[precision] / passes == pytest.approx(math.sqrt(3))
    assert SIDES_MARGIN[precision] == pytest.approx(5 * component)
    assert PIPELINE_BOUNDS[precision] < PLAN_PIPELINE_BOUNDS[precision]


def test_bfloat16_may_drift_twice_as_far_as_guidance_multiplies_its_error() -> None:
    factor = math.sqrt(5**2 + 4**2)
    assert pytest.approx(2 * factor * 1.3e-2, rel=0.05) == BFLOAT16_PIPELINE_BOUND


def test_a_pixel_counts_that_went_to_the_other_model_beyond_its_margin() -> None:
    tdm = np.full((1, 2, 5), 0.1)
    sdm = np.exp(np.linspace(-0.1, 0.1, 10)).reshape(1, 2, 5) * tdm
    expected = Sides(tdm=tdm, sdm=sdm, mask=sdm > tdm)
    assert changed_sides(expected, expected, 0.05) == 0.0
    turned = Sides(tdm=tdm, sdm=sdm, mask=~expected.mask)
    # Margins of 0.011, 0.033, 0.056, 0.078 and 0.1 on either side.
    assert changed_sides(turned, expected, 0.05) == 0.6
    assert changed_sides(turned, expected, 0.0) == 1.0
    lost = Sides(tdm=tdm * np.nan, sdm=sdm, mask=expected.mask)
    assert not changed_sides(lost, expected, 0.05) <= 1.0


def test_the_farthest_of_several_is_nan_where_one_is() -> None:
    assert farthest([0.1, 0.3, 0.2]) == 0.3
    assert math.isnan(farthest([0.1, math.nan, 0.2]))
    assert not farthest([math.nan]) <= math.inf


def test_distances_are_relative_to_what_was_expected() -> None:
    expected = np.array([3.0, 4.0])
    assert relative_l2(np.array([3.0, 5.0]), expected) == pytest.approx(1 / 5)
    assert relative_l2(2 * expected, expected) == 1.0


def test_a_profiles_best_and_largest_shapes_are_compared_each_once() -> None:
    (ranges,) = shape_ranges(Component.TDM_UNET, PROFILES["sizes"], DIMENSIONS)
    assert [each["latents"] for each in gate_shapes((ranges,))] == [(1, 4, 8, 8), (1, 4, 16, 16)]
    (native,) = shape_ranges(Component.TDM_UNET, PROFILES["native"], DIMENSIONS)
    assert [each["latents"] for each in gate_shapes((native,))] == [(1, 4, 8, 8)]
    assert len(gate_shapes((native, ranges))) == 2, "both have the best shape"


def test_a_noise_predictor_is_compared_at_the_start_the_middle_and_the_end() -> None:
    shapes = {"latents": (1, 4, 8, 8), "timestep": (1,), "prompt_embeds": (2, 77, 8)}
    cases = list(gate_inputs(Component.SDM_UNET, shapes))
    assert [case["timestep"].tolist() for case in cases] == [[981.0], [501.0], [21.0]]
    for case in cases:
        assert {name: value.shape for name, value in case.items()} == shapes
        # 256 and 1232 normal numbers: within three standard errors of unit variance.
        assert case["latents"].std() == pytest.approx(1, abs=3 / math.sqrt(2 * 256))
        assert case["prompt_embeds"].std() == pytest.approx(1, abs=3 / math.sqrt(2 * 1232))
    assert not np.array_equal(cases[0]["latents"], cases[1]["latents"])
    again = next(gate_inputs(Component.SDM_UNET, shapes))
    np.testing.assert_array_equal(again["latents"], cases[0]["latents"])
    several = {"latents": (4, 4, 8, 8), "timestep": (4,), "prompt_embeds": (8, 77, 8)}
    # A plan that took the first image's for all would differ.
    found = [case["timestep"].tolist() for case in gate_inputs(Component.SDM_UNET, several)]
    assert found == [[981, 501, 21, 981], [501, 21, 981, 501], [21, 981, 501, 21]]


def test_words_and_masks_are_what_encoders_take() -> None:
    (ids,) = gate_inputs(Component.TEXT_ENCODER, {"input_ids": (3, 77)})
    assert ids["input_ids"].dtype == np.int32
    assert set(ids["input_ids"].flat) <= set(range(256))
    assert len(set(ids["input_ids"].flat)) > 100
    shapes = {
        "text_embeds": (4, 77, 8), "token_subject_embeds": (4, 77, 8), "subject_token_mask": (4, 77)
    }  # fmt: skip
    (case,) = gate_inputs(Component.FUSION_MLP, shapes)
    mask = case["subject_token_mask"]
    assert mask.dtype == np.bool_
    assert 0.1 < mask.mean() < 0.3
