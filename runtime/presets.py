"""Presets: named sets of request defaults, each with what it costs (docs/quality.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from engines.guides import GuidanceRule
from runtime.method.solvers import Scheduler


class Preset(StrEnum):
    """How much time a picture is worth."""

    QUALITY = "quality"
    BALANCED = "balanced"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a preset gives the fields of a Request that say nothing themselves."""

    num_inference_steps: int
    scheduler: Scheduler
    guidance_rule: GuidanceRule
    guidance_every: int
    guidance_until: float


# U-Net evaluations of a picture: 165, 48 and 24.
PRESETS: Mapping[Preset, Defaults] = MappingProxyType(
    {
        Preset.QUALITY: Defaults(
            num_inference_steps=50,
            scheduler=Scheduler.DDIM,
            guidance_rule=GuidanceRule.PAPER,
            guidance_every=1,
            guidance_until=1.0,
        ),
        Preset.BALANCED: Defaults(
            num_inference_steps=20,
            scheduler=Scheduler.DDIM_TRAILING,
            guidance_rule=GuidanceRule.RELEASED,
            guidance_every=2,
            guidance_until=1.0,
        ),
        Preset.FAST: Defaults(
            num_inference_steps=10,
            scheduler=Scheduler.DDIM_TRAILING,
            guidance_rule=GuidanceRule.RELEASED,
            guidance_every=2,
            guidance_until=1.0,
        ),
    }
)
