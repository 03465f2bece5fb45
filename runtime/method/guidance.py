"""Guided noise from the passes of one engine call (paper, Eq. 1 and Eq. 2), in float32 numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from engines.guides import Guide

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Guided:
    """A model's answer at one step: both [images, 4, h, w] float32."""

    noise: Float32Array
    guidance: Float32Array


class SubjectGuidance(Enum):
    """How a step of the subject stage is guided.

    FULL: by all passes. KEPT: likewise, and what they add to the augmented pass is kept. CACHED:
    the augmented pass alone, and what was kept is added. OFF: the augmented pass alone.
    """

    FULL = "full"
    KEPT = "kept"
    CACHED = "cached"
    OFF = "off"

    @property
    def alone(self) -> bool:
        """Whether SDM computes its augmented pass and no other."""
        return self in (SubjectGuidance.CACHED, SubjectGuidance.OFF)


def subject_guidance(shares: Sequence[float], every: int, until: float) -> list[SubjectGuidance]:
    """How each step of the subject stage is guided. shares: solvers.solver.Grid's, of these steps.

    All passes in the first step and in each `every`-th after it; none from the share `until` on.
    """
    kinds = []
    for step, share in enumerate(shares):
        if round(share, 9) >= round(until, 9):
            kinds.append(SubjectGuidance.OFF)
        elif step % every:
            kinds.append(SubjectGuidance.CACHED)
        else:
            kinds.append(SubjectGuidance.FULL if every == 1 else SubjectGuidance.KEPT)
    return kinds


def guided(noise_prediction: npt.NDArray[np.floating], guide: Guide, scale: float) -> Guided:
    """Combine the guidance passes of one engine call.

    noise_prediction: [passes * images, 4, h, w], pass-major, half or single precision.
    Returns float32 arrays, computed in float32.
    """
    passes = np.asarray(noise_prediction, np.float32)
    passes = passes.reshape(len(guide.passes), -1, *passes.shape[1:])
    guidance = np.float32(scale) * (passes[guide.target] - passes[guide.base])
    return Guided(noise=passes[guide.start] + guidance, guidance=guidance)


def added(
    noise: Float32Array, noise_prediction: npt.NDArray[np.floating], guide: Guide
) -> Float32Array:
    """What guidance adds to the pass it points to: guided noise - target, [images, 4, h, w]."""
    images = len(noise)
    target = noise_prediction[guide.target * images : (guide.target + 1) * images]
    return noise - target.astype(np.float32)
