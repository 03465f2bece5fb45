"""A record of the quality benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.schema.record import Record

Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class QualityRow:
    """One variant's means over its pictures.

    _95: the ends of the mean's 95 % interval. _by_people: of the pictures with one person and with
    two; the first records did not tell them apart. _gain_95: of the difference from the full
    method, None for what is not drawn by the model.
    """

    row: str
    pictures: int
    identity: float
    identity_95: Ends
    identity_by_people: Ends | None = None
    scene: float
    scene_95: Ends
    pose: float
    people: float
    prompt: float
    prompt_95: Ends
    prompt_by_people: Ends | None = None
    identity_gain_95: Ends | None = None
    prompt_gain_95: Ends | None = None


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What another person in another scene scores."""

    identity: float
    scene: float


@dataclass(frozen=True, kw_only=True)
class QualityFacts:
    """*_accuracy: by attribute, the share of people of whom the probe tells it rightly.

    *_mean_difference: of pixels from the full method's, None where that variant was not drawn.
    """

    steps: int
    chance: Chance
    probe_accuracy: Mapping[str, float]
    probe_accuracy_through_vae: Mapping[str, float]
    full_method_accuracy: Mapping[str, float]
    fp16_fp32_mean_difference: float | None = None
    bfloat16_mean_difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityRecord(Record):
    facts: QualityFacts
    rows: tuple[QualityRow, ...]


@dataclass(frozen=True, kw_only=True)
class CurveRow:
    """What one way to draw costs, and how its pictures compare with the quality preset's.

    evaluations: passes through a U-Net a picture. _95: the ends of the 95 % interval. *_gain: mean
    of the differences from that preset's pictures, case by case; None for itself.
    pixel_difference: mean absolute difference from them, as a share of the range.
    structure_difference: 1 - SSIM.
    """

    row: str
    pictures: int
    evaluations: int
    identity: float
    identity_95: Ends
    identity_gain: float | None = None
    identity_gain_95: Ends | None = None
    scene: float
    scene_95: Ends
    prompt: float
    pixel_difference: float
    structure_difference: float


@dataclass(frozen=True, kw_only=True)
class CurveFacts:
    """A picture's wall clock by preset, in turns.

    picture_ms: medians over the rounds. speedup: the median over the rounds of the quality
    preset's time by this one's.
    """

    provider: str
    threads: int
    rounds: int
    picture_ms: Mapping[str, float]
    speedup: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CurveRecord(Record):
    facts: CurveFacts
    rows: tuple[CurveRow, ...]
