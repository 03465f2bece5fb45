"""The words that a Request takes for its enums, so that type checkers know them."""

from __future__ import annotations

from typing import Literal

PresetWord = Literal["quality", "balanced", "fast"]
SchedulerWord = Literal[
    "ddim", "ddim-trailing", "pndm", "plms2", "dpmpp-2m", "dpmpp-2m-karras", "unipc-2"
]
GuidanceRuleWord = Literal["paper", "released", "fastcomposer"]
FusionWord = Literal["saliency", "addition"]
OutputTypeWord = Literal["pil", "np", "latent"]
