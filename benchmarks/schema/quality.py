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
