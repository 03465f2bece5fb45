"""The parity gate's bounds and inputs, for whatever computes a component."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.bundle.manifest import Precision
from engines.contract import CONTRACTS, Component, ElementType, Shape, ShapeRanges, Tensor

Array = npt.NDArray[Any]

# Half precision rounds each result by up to 2**-11, 2.8e-4 in the mean square. Errors of k
# roundings in a row add like a random walk, so about 2.8e-4 * sqrt(k): k is some 400 in a U-Net
# (5.6e-3), 150 in an image encoder or VAE decoder (3.5e-3), 70 in a text encoder (2.4e-3), 8 in the
# fusion MLP (8e-4). The bounds are twice that, rounded.
_HALF_BOUNDS = {
    Component.TEXT_ENCODER: 5e-3,
    Component.IMAGE_ENCODER: 7e-3,
    Component.FUSION_MLP: 2e-3,
    Component.TDM_UNET: 1.2e-2,
    Component.SDM_UNET: 1.2e-2,
    Component.VAE_DECODER: 7e-3,
}
# In float32 the same walk with 2**-24 stays under 1e-6; sums over thousands of terms in another
# order cost up to two more digits.
_SINGLE_BOUND = 1e-4
# The pipeline amplifies by the guidance scale and may flip pixels whose saliencies nearly tie.
PIPELINE_BOUNDS = {Precision.FP16: 2e-2, Precision.FP32: 1e-3}

# With plans, each U-Net call errs by up to its own bound. Guidance at scale 5 adds passes with
# weights 1, 5 and -5 (SDM, Eq. 2) and so multiplies independent errors by sqrt(1 + 25 + 25) = 7.1,
# of the noise, which is most of a latent. What is within the component's bound must pass and three
# times that must not: the bound lies between, in ratio, at sqrt(3). That holds where noises are
# averaged, not chosen by pixel: a pixel that changes sides moves a small picture by more.
GUIDANCE_GAIN = math.sqrt(1 + 25 + 25)
_BETWEEN = math.sqrt(3)
PLAN_PIPELINE_BOUNDS = {
    Precision.FP16: _BETWEEN * GUIDANCE_GAIN * _HALF_BOUNDS[Component.SDM_UNET],  # 1.5e-1
    Precision.FP32: _BETWEEN * GUIDANCE_GAIN * _SINGLE_BOUND,  # 1.2e-3
}

# Fusion by saliency: a pixel's margin is the difference of the logarithms of both saliencies, each
# a mean of magnitudes of guidance over 4 channels and a window of 16 pixels. Guidance errs by
# 5 * sqrt(2) = 7.1 times what a pass does, where neighbors err alike by sqrt(4) less in the mean of
# the channels, and by sqrt(2) more in the difference: 7.1 / 2 * 1.4 = 5 times a pass. A pixel whose
# margin is beyond that stays where it is, but for one in a hundred.
SIDES_MARGIN = {
    Precision.FP16: 5 * _HALF_BOUNDS[Component.SDM_UNET],  # 6e-2
    Precision.FP32: 5 * _SINGLE_BOUND,  # 5e-4
}
SIDES_BOUND = 1e-2

# U-Nets in bfloat16 err by 1.3e-2 (in OpenVINO as in eager PyTorch, at full size on random
# weights); guidance as released adds passes with weights 5 and -4: sqrt(25 + 16) = 6.4 times that,
# doubled.
BFLOAT16_PIPELINE_BOUND = 1.6e-1

# Noise levels of a trajectory's start, middle and end.
_TIMESTEPS = (981, 501, 21)
_SEED = 2311_10329
# A saliency that underflowed still has a logarithm.
_LEAST = np.finfo(np.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Sides:
    """One step of fusion by saliency, all [images, h, w].

    tdm, sdm: each model's saliency. mask: where SDM's noise is taken.
    """

    tdm: Array
    sdm: Array
    mask: Array


def changed_sides(found: Sides, expected: Sides, margin: float) -> float:
    """The share of pixels that went to the other model though the expected margin is beyond that.

    NaN where a saliency is none.
    """
    if not (np.isfinite(found.tdm).all() and np.isfinite(found.sdm).all()):
        return math.nan
    logarithms = [np.log(np.maximum(each, _LEAST)) for each in (expected.tdm, expected.sdm)]
    beyond = np.abs(logarithms[1] - logarithms[0]) > margin
    return float((beyond & (found.mask != expected.mask)).mean())


def bound_of(component: Component, precision: Precision) -> float:
    """Largest relative L2 error that a component may have in a precision."""
    return _HALF_BOUNDS[component] if precision is Precision.FP16 else _SINGLE_BOUND


def relative_l2(found: Array, expected: Array) -> float:
    """|found - expected| / |expected|."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def farthest(distances: Sequence[float]) -> float:
    """The largest distance of one or more; NaN where any is, so that no bound admits it."""
    return float(np.max(distances))


def gate_shapes(ranges: tuple[ShapeRanges, ...]) -> list[dict[str, Shape]]:
    """Input shapes to compare a plan at: the best and the largest of each optimization profile."""
    shapes: list[dict[str, Shape]] = []
    for profile in ranges:
        for which in (1, 2):
            each = {name: bounds[which] for name, bounds in profile.items()}
            if each not in shapes:
                shapes.append(each)
    return shapes


def gate_inputs(component: Component, shapes: dict[str, Shape]) -> Iterator[dict[str, Array]]:
    """Seeded inputs of realistic scale for these shapes; a noise predictor's at three timesteps,
    of which each image has another.

    Latents of every timestep have unit variance; embeds leave a layer norm, so they have it too.
    """
    random = np.random.RandomState(_SEED)
    inputs = CONTRACTS[component].inputs
    has_timestep = any(tensor.name == "timestep" for tensor in inputs)
    for first in range(len(_TIMESTEPS)) if has_timestep else (0,):
        timesteps = np.roll(np.array(_TIMESTEPS, np.float32), -first)
        yield {
            tensor.name: (
                np.resize(timesteps, shapes[tensor.name])
                if tensor.name == "timestep"
                else _values(tensor, shapes[tensor.name], random)
            )
            for tensor in inputs
        }


def _values(tensor: Tensor, shape: Shape, random: np.random.RandomState) -> Array:
    match tensor.element_type:
        case ElementType.INT32:
            # Token ids that every vocabulary of byte pairs has.
            return random.randint(0, 256, shape).astype(np.int32)
        case ElementType.BOOL:
            return random.random_sample(shape) < 0.2
        case _:
            return random.standard_normal(shape).astype(np.float32)
