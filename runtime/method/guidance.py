"""Classifier-free guidance as Face-Diffuser uses it (paper, Eq. 1 and Eq. 2).

    guidance     = s * (target - base)
    guided noise = base' + guidance

TDM: base = base' = null, target = text (Eq. 1).
SDM: base = text, target = augmented; base' = null by the paper (Eq. 2), text in the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


class Pass(Enum):
    """One guidance pass: which prompt embeds a U-Net sees."""

    NULL = "null"
    TEXT = "text"
    AUGMENTED = "augmented"


class GuidanceRule(StrEnum):
    """Where SDM's guided noise starts: at the null pass (paper) or at the text pass (released)."""

    PAPER = "paper"
    RELEASED = "released"


@dataclass(frozen=True)
class Guide:
    """The passes of one model, in engine order, and the roles they play.

    passes: the leading blocks of the engine's output. start, base, target: indices into passes.
    """

    passes: tuple[Pass, ...]
    start: int
    base: int
    target: int


TDM_GUIDE = Guide((Pass.NULL, Pass.TEXT), start=0, base=0, target=1)
SDM_GUIDES = {
    GuidanceRule.PAPER: Guide((Pass.NULL, Pass.TEXT, Pass.AUGMENTED), start=0, base=1, target=2),
    GuidanceRule.RELEASED: Guide((Pass.TEXT, Pass.AUGMENTED), start=0, base=0, target=1),
}


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
