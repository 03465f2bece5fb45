"""Seven ways to make the pictures worse, which scores of quality should notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.quality.cases import Photos, Pixels, Variant
from engines.bundle.quantization import Quantization
from runtime import Scheduler

BLUR_PX = 1.0
NOISE_SHARE = 0.05

Change = Callable[[Sequence[Pixels]], list[Pixels]]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """How pictures get worse: other ones are drawn, or BASE's are changed."""

    name: str
    drawn: Variant | None = None
    changed: Change | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if (self.drawn is None) == (self.changed is None):
            raise ValueError(f"{self.name}: expected either what is drawn or what is changed")


def blurred(pictures: Sequence[Pixels]) -> list[Pixels]:
    """By a Gaussian of BLUR_PX."""
    blur = ImageFilter.GaussianBlur(BLUR_PX)
    return [np.asarray(Image.fromarray(each).filter(blur)) for each in pictures]


def noisy(pictures: Sequence[Pixels]) -> list[Pixels]:
    """With normal noise whose deviation is NOISE_SHARE of the range; the same on each call."""
    chance = np.random.RandomState(0)
    stacked = np.stack(pictures)
    noise = chance.standard_normal(stacked.shape) * NOISE_SHARE * 255
    return list((stacked + noise).round().clip(0, 255).astype(np.uint8))


def corruptions() -> list[Corruption]:
    """In the order of the table."""
    return [
        Corruption(name="Gaussian blur, 1 px", changed=blurred, quick=True),
        Corruption(
            name="4 steps",
            drawn=Variant(name="4 steps", options={"num_inference_steps": 4}),
            quick=True,
        ),
        Corruption(
            name="PNDM, 20 steps",
            drawn=Variant(name="PNDM, 20 steps", options={"scheduler": Scheduler.PNDM}),
        ),
        Corruption(
            name="U-Nets in INT8",
            drawn=Variant(name="U-Nets in INT8", options={}, quantization=Quantization.INT8),
        ),
        Corruption(
            name="two people swapped",
            drawn=Variant(name="two people swapped", options={}, photos=Photos.SWAPPED),
        ),
        Corruption(
            name="another's hat",
            drawn=Variant(name="another's hat", options={}, photos=Photos.OTHER_HAT),
        ),
        Corruption(name="5 % noise", changed=noisy, quick=True),
    ]
