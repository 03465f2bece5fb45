"""Guidance is linear in the noise predictions, for every model and rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.guides import SDM_GUIDES, TDM_GUIDE, Guide
from runtime.method.guidance import added, guided

GUIDES = [TDM_GUIDE, *SDM_GUIDES.values()]
SEEDS, SCALES = st.integers(0, 2**32 - 1), st.floats(1.01, 30)


def predictions(
    guide: Guide, seed: int, images: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    random = np.random.RandomState(seed)
    return random.standard_normal((len(guide.passes) * images, 4, 8, 8)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GUIDES), SEEDS, SCALES, st.integers(1, 3))
def test_guidance_of_a_sum_is_the_sum_of_guidances(
    guide: Guide, seed: int, scale: float, images: int
) -> None:
    one, other = (predictions(guide, (seed + n) % 2**32, images) for n in range(2))
    both = guided(one + other, guide, scale)
    first, second = guided(one, guide, scale), guided(other, guide, scale)
    # A few fp32 roundings (6e-8 each) of numbers up to about 10 * scale.
    np.testing.assert_allclose(both.noise, first.noise + second.noise, atol=5e-6 * scale)
    np.testing.assert_allclose(both.guidance, first.guidance + second.guidance, atol=5e-6 * scale)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GUIDES), SEEDS, SCALES)
def test_doubling_the_scale_doubles_the_guidance_and_nothing_else(
    guide: Guide, seed: int, scale: float
) -> None:
    prediction = predictions(guide, seed, 1)
    once, twice = guided(prediction, guide, scale), guided(prediction, guide, 2 * scale)
    np.testing.assert_array_equal(twice.guidance, 2 * once.guidance)  # a power of two is exact
    # Both starts are the same pass, up to the rounding of the two sums.
    np.testing.assert_allclose(
        twice.noise - twice.guidance, once.noise - once.guidance, atol=5e-6 * scale
    )


@pytest.mark.parametrize("guide", GUIDES)
def test_each_image_is_guided_by_its_own_passes(guide: Guide) -> None:
    prediction = predictions(guide, 0, 3)
    together = guided(prediction, guide, 5.0)
    for image in range(3):
        alone = guided(prediction[image::3], guide, 5.0)
        np.testing.assert_array_equal(together.noise[image], alone.noise[0])
        np.testing.assert_array_equal(together.guidance[image], alone.guidance[0])


@pytest.mark.parametrize("guide", GUIDES)
def test_half_precision_predictions_are_guided_in_single(guide: Guide) -> None:
    half = predictions(guide, 1, 2).astype(np.float16)
    found, expected = guided(half, guide, 5.0), guided(half.astype(np.float32), guide, 5.0)
    assert found.noise.dtype == found.guidance.dtype == np.float32
    np.testing.assert_array_equal(found.noise, expected.noise)


@pytest.mark.parametrize("guide", GUIDES)
def test_what_guidance_adds_is_what_the_pass_that_it_points_to_lacks(guide: Guide) -> None:
    for prediction in (predictions(guide, 2, 3), predictions(guide, 2, 3).astype(np.float16)):
        noise = guided(prediction, guide, 5.0).noise
        found = added(noise, prediction, guide)
        assert found.dtype == np.float32
        target = prediction.reshape(len(guide.passes), 3, 4, 8, 8)[guide.target]
        np.testing.assert_array_equal(found, noise - target.astype(np.float32))
