"""Which guidance passes a U-Net's call batches, in which order, and the roles they play.

Classifier-free guidance as Face-Diffuser uses it (paper, Eq. 1 and Eq. 2):

    guidance     = s * (target - base)
    guided noise = base' + guidance

TDM: base = base' = null, target = text (Eq. 1).
SDM: base = text, target = augmented; base' = null by the paper (Eq. 2), text in the released code.
FastComposer (Xiao et al. 2023, section 4.3), of one U-Net: base = base' = null, target = augmented.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from engines.contract import Component


class Pass(Enum):
    """One guidance pass: which prompt embeds a U-Net sees."""

    NULL = "null"
    TEXT = "text"
    AUGMENTED = "augmented"


class GuidanceRule(StrEnum):
    """How the people's guidance points: from text to augmented, starting at the null pass (paper)
    or at the text pass (released), or as FastComposer's, from null to augmented."""

    PAPER = "paper"
    RELEASED = "released"
    FASTCOMPOSER = "fastcomposer"

    @property
    def fuses(self) -> bool:
        """Whether two models draw together for a while; FastComposer has one U-Net."""
        return self is not GuidanceRule.FASTCOMPOSER


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
    GuidanceRule.FASTCOMPOSER: Guide((Pass.NULL, Pass.AUGMENTED), start=0, base=0, target=1),
}
# The augmented pass by itself, where guidance is remembered from another step or over.
SDM_ALONE = Guide((Pass.AUGMENTED,), start=0, base=0, target=0)


def pass_counts(component: Component) -> tuple[int, ...]:
    """How many passes a component's calls may batch, ascending; 1 for what is not guided."""
    guides = {
        Component.TDM_UNET: [TDM_GUIDE],
        Component.SDM_UNET: [SDM_ALONE, *SDM_GUIDES.values()],
    }
    return tuple(sorted({len(guide.passes) for guide in guides.get(component, [])})) or (1,)
