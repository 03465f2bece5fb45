"""Properties of Saliency-adaptive Noise Fusion that hold for any input."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.method.guidance import Guided
from runtime.method.saliency import fused_by_saliency, smoothed

Float32Array = npt.NDArray[np.float32]


class Pair(NamedTuple):
    tdm: Guided
    sdm: Guided


def pair(seed: int, images: int = 2, size: tuple[int, int] = (8, 16), scale: float = 1.0) -> Pair:
    random = np.random.RandomState(seed)
    fields = random.standard_normal((4, images, 4, *size)).astype(np.float32) * np.float32(scale)
    return Pair(Guided(fields[0], fields[1]), Guided(fields[2], fields[3]))


def picked(both: Pair, image: int) -> Pair:
    one = slice(image, image + 1)
    return Pair(*(Guided(each.noise[one], each.guidance[one]) for each in both))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_an_image_is_fused_as_if_it_were_alone(seed: int, images: int) -> None:
    both = pair(seed, images)
    noise, saliency = fused_by_saliency(*both)
    for image in range(images):
        alone, its = fused_by_saliency(*picked(both, image))
        # Other shapes may add in another order; choices away from a tie agree.
        np.testing.assert_allclose(saliency.tdm[image], its.tdm[0], rtol=1e-5)
        clear = np.abs(its.sdm[0] / its.tdm[0] - 1) > 1e-5
        np.testing.assert_array_equal(saliency.mask[image][clear], its.mask[0][clear])
        np.testing.assert_array_equal(noise[image][:, clear], alone[0][:, clear])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(8, 8), (16, 8), (8, 24)]))
def test_smoothing_is_linear_in_scale_and_the_same_along_both_axes(
    seed: int, size: tuple[int, int]
) -> None:
    guidance = pair(seed, 1, size).tdm.guidance
    # Means of positive numbers: relative rounding of a few 6e-8.
    np.testing.assert_allclose(smoothed(4 * guidance), 4 * smoothed(guidance), rtol=1e-6)
    turned = smoothed(guidance.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_allclose(turned, smoothed(guidance), rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e3, 1e6])
def test_no_scale_of_guidance_makes_a_map_that_is_not_finite(scale: float) -> None:
    noise, saliency = fused_by_saliency(*pair(0, scale=scale))
    for each in (noise, saliency.tdm, saliency.sdm):
        assert np.isfinite(each).all()
    # 128 float32 terms of a softmax whose logarithm is rounded at the scale of its argument.
    np.testing.assert_allclose(saliency.sdm.sum((1, 2)), 1, atol=1e-5 + 1e-6 * scale)
    if scale == 0:
        assert not saliency.mask.any()


def test_guidance_in_one_place_takes_that_place_from_the_subject_model() -> None:
    quiet = np.zeros((1, 4, 16, 16), np.float32)
    loud = quiet.copy()
    loud[:, :, 4:8, 4:8] = 10
    _, saliency = fused_by_saliency(Guided(quiet, quiet), Guided(quiet, loud))
    assert saliency.mask[0, 5, 5]
    assert not saliency.mask[0, 12:, 12:].any()
