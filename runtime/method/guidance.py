"""Guided noise from the passes of one engine call (paper, Eq. 1 and Eq. 2), in float32 numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.guides import Guide

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Guided:
    """A model's answer at one step: both [images, 4, h, w] float32."""

    noise: Float32Array
    guidance: Float32Array


def guided(noise_prediction: npt.NDArray[np.floating], guide: Guide, scale: float) -> Guided:
    """Combine the guidance passes of one engine call.

    noise_prediction: [passes * images, 4, h, w], pass-major, half or single precision.
    Returns float32 arrays, computed in float32.
    """
    passes = np.asarray(noise_prediction, np.float32)
    passes = passes.reshape(len(guide.passes), -1, *passes.shape[1:])
    guidance = np.float32(scale) * (passes[guide.target] - passes[guide.base])
    return Guided(noise=passes[guide.start] + guidance, guidance=guidance)
