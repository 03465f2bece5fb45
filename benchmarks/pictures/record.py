"""A record of the presets benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.facts import Agreement, ProviderFacts
from benchmarks.schema.record import Record


@dataclass(frozen=True, kw_only=True)
class PresetRow:
    """A whole picture of one preset, from prompt and photos to pixels.

    evaluations: passes through a U-Net. coders_ms: of its last picture, the encoders and the
    decoder, which every preset pays. times_as_fast: the median of the rounds' ratios, the quality
    preset's time over this one's, of which low and high hold 95 %. None where that is no
    measurement: all of the quality preset, the interval of a single round.
    """

    preset: str
    steps: int
    evaluations: int
    p50_ms: float
    coders_ms: float
    times_as_fast: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class PresetsFacts(ProviderFacts):
    """size_px: height and width of the pictures. people: in each."""

    agreement: Agreement
    size_px: int
    people: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class PresetsRecord(Record):
    facts: PresetsFacts
    rows: tuple[PresetRow, ...]
