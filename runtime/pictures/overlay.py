"""What SNF saw, laid over the picture it led to."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from engines.errors import RequestError
from runtime.method.saliency import Saliency

Shown = Literal["mask", "tdm", "sdm"]

# Okabe and Ito's blue and orange, which color-blind readers tell apart.
_TDM_COLOR, _SDM_COLOR = (0, 114, 178), (230, 159, 0)
_MASK_OPACITY, _PEAK_OPACITY = 0.4, 0.85


def overlay(
    picture: Image.Image, saliency: Saliency, *, image: int = 0, shown: Shown = "mask"
) -> Image.Image:
    """A picture with one step's saliency over it, RGB of the picture's size.

    shown: "mask" colors what was taken from SDM orange and what was taken from TDM blue; "tdm" and
    "sdm" color each place by that model's saliency, from nothing at its least to most at its peak.
    Raises RequestError for another word.
    """
    if shown == "mask":
        mask = saliency.mask[image]
        opacity = np.full(mask.shape, _MASK_OPACITY, np.float32)
        colors = np.where(mask[..., None], _SDM_COLOR, _TDM_COLOR)
        resample = Image.Resampling.NEAREST
    elif shown in ("tdm", "sdm"):
        maps = saliency.tdm if shown == "tdm" else saliency.sdm
        # Over thousands of pixels the softmax is nearly flat: what shows is where it rises.
        rise = maps[image] - maps[image].min()
        opacity = _PEAK_OPACITY * rise / max(float(rise.max()), np.finfo(np.float32).tiny)
        colors = np.broadcast_to(_TDM_COLOR if shown == "tdm" else _SDM_COLOR, (*opacity.shape, 3))
        resample = Image.Resampling.BILINEAR
    else:
        raise RequestError(f'shown must be "mask", "tdm" or "sdm", got {shown!r:.80}')
    color = Image.fromarray(colors.astype(np.uint8)).resize(picture.size, resample)
    return Image.composite(color, picture.convert("RGB"), _alpha(opacity, picture.size, resample))


def _alpha(
    opacity: npt.NDArray[np.float32], size: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    levels = np.clip(opacity * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(levels).resize(size, resample)
