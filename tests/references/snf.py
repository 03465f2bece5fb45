"""Saliency-adaptive Noise Fusion, float64 (paper, Eq. 3 to 5; Smooth as released)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Fused(NamedTuple):
    """noise: [images, c, h, w]; tdm, sdm, mask, margin: [images, h, w].

    margin: log of SDM's saliency over TDM's. Near 0, rounding decides the mask.
    """

    noise: Array
    tdm: Array
    sdm: Array
    mask: npt.NDArray[np.bool_]
    margin: Array


def smooth(magnitude: Array) -> Array:
    """AvgPool2d(4, stride 1, padding 1, zeros counted), then bilinear resize back: [..., h, w]."""
    height, width = magnitude.shape[-2:]
    padded = np.pad(magnitude, [(0, 0)] * (magnitude.ndim - 2) + [(1, 1), (1, 1)])
    pooled = np.zeros((*magnitude.shape[:-2], height - 1, width - 1))
    for row in range(4):
        for column in range(4):
            pooled += padded[..., row : row + height - 1, column : column + width - 1] / 16
    return resized(resized(pooled, height, axis=-2), width, axis=-1)


def resized(x: Array, size: int, axis: int) -> Array:
    """Linear interpolation to size elements along one axis, half-pixel centers, clamped ends."""
    source = (np.arange(size) + 0.5) * x.shape[axis] / size - 0.5
    source = np.clip(source, 0, x.shape[axis] - 1)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = (source - low).reshape([-1] + [1] * (-1 - axis))
    between: Array = (1 - share) * np.take(x, low, axis) + share * np.take(x, high, axis)
    return between


def saliency(guidance: Array) -> Array:
    """Eq. 3, as a logarithm: [images, c, h, w] -> [images, h, w]."""
    maps = smooth(np.abs(guidance)).mean(axis=1)
    peak = maps.max(axis=(1, 2), keepdims=True)
    logarithm: Array = maps - peak - np.log(np.exp(maps - peak).sum(axis=(1, 2), keepdims=True))
    return logarithm


def snf(tdm: tuple[Array, Array], sdm: tuple[Array, Array]) -> Fused:
    """Eq. 4 and 5; tdm, sdm: (guided noise, guidance). argmax takes the first, TDM, at a tie."""
    log_tdm, log_sdm = saliency(tdm[1]), saliency(sdm[1])
    mask = np.argmax(np.stack([log_tdm, log_sdm]), axis=0) == 1
    noise = np.where(mask[:, None], sdm[0], tdm[0])
    return Fused(noise, np.exp(log_tdm), np.exp(log_sdm), mask, log_sdm - log_tdm)


def addition(tdm: tuple[Array, Array], sdm: tuple[Array, Array]) -> Array:
    """The ablation of Table 4: the mean of the two guided noises."""
    return (tdm[0] + sdm[0]) / 2
