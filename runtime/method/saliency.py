"""Saliency-adaptive Noise Fusion (paper, Eq. 3 to 5), in float32 numpy.

The released smoothing, a 4x4 average pool (stride 1, zero padding counted) followed by a bilinear
resize back to the latents' size, is linear and separable: one banded matrix along each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from runtime.method.guidance import Guided

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class Fusion(StrEnum):
    """How two noises become one: per pixel by saliency, or averaged (Table 4's ablation)."""

    SALIENCY = "saliency"
    ADDITION = "addition"


@dataclass(frozen=True)
class Saliency:
    """What SNF saw at one step.

    tdm, sdm: [images, h, w] float32, each map sums to one per image (Eq. 3).
    mask: [images, h, w] bool, True where SDM's noise was taken (Eq. 4); a tie goes to TDM.
    """

    tdm: Float32Array
    sdm: Float32Array
    mask: BoolArray


def smoothed(guidance: Float32Array) -> Float32Array:
    """Smooth(Abs(guidance)), averaged over channels: [images, 4, h, w] -> [images, h, w]."""
    magnitude = np.abs(guidance).mean(axis=1)
    height, width = magnitude.shape[-2:]
    smooth: Float32Array = smoothing_matrix(height) @ magnitude @ smoothing_matrix(width).T
    return smooth


@lru_cache(maxsize=32)
def smoothing_matrix(size: int) -> Float32Array:
    """[size, size] float32: average pool of 4 (stride 1, padding 1), then resize back to size.

    The resize is bilinear with half-pixel centers and clamped edges. Border rows sum to 3/4 because
    the released pool counts its zero padding; they are not renormalized.
    """
    pool = np.zeros((size - 1, size))
    for row in range(size - 1):
        pool[row, max(row - 1, 0) : row + 3] = 1 / 4
    source = np.clip((np.arange(size) + 0.5) * (size - 1) / size - 0.5, 0, size - 2)
    low = np.minimum(source.astype(int), size - 3)
    resize = np.zeros((size, size - 1))
    resize[np.arange(size), low] = 1 - (source - low)
    resize[np.arange(size), low + 1] = source - low
    return (resize @ pool).astype(np.float32)


def log_normalizer(maps: Float32Array) -> Float32Array:
    """Log of the softmax's denominator over the pixels: [images, h, w] -> [images, 1, 1]."""
    peak = maps.max(axis=(-2, -1), keepdims=True)
    total: Float32Array = peak + np.log(np.exp(maps - peak).sum(axis=(-2, -1), keepdims=True))
    return total


def fused_by_saliency(tdm: Guided, sdm: Guided) -> tuple[Float32Array, Saliency]:
    """Take, per pixel, the guided noise of the more salient model (Eq. 3 to 5).

    The softmaxes are compared as logarithms, where saturated pixels cannot underflow into ties, and
    differences are taken first, which rounds least where the models nearly agree.
    """
    tdm_map, sdm_map = smoothed(tdm.guidance), smoothed(sdm.guidance)
    tdm_normalizer, sdm_normalizer = log_normalizer(tdm_map), log_normalizer(sdm_map)
    mask = sdm_map - tdm_map > sdm_normalizer - tdm_normalizer
    noise = np.where(mask[:, None], sdm.noise, tdm.noise)
    return noise, Saliency(
        tdm=np.exp(tdm_map - tdm_normalizer), sdm=np.exp(sdm_map - sdm_normalizer), mask=mask
    )


def fused_by_addition(tdm: Guided, sdm: Guided) -> Float32Array:
    """Average the two guided noises everywhere: a plain sum would double the noise's scale."""
    return np.float32(0.5) * (tdm.noise + sdm.noise)
