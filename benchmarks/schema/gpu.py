"""A record of the GPU script."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.facts import Peaks
from benchmarks.schema.record import Record, Status


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part, its command and how it ended. reason: "" where it was measured."""

    part: str
    command: str
    status: Status
    s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    peaks: Peaks
    budget_s: float


@dataclass(frozen=True, kw_only=True)
class GpuRecord(Record):
    facts: GpuFacts
    rows: tuple[PartRow, ...]
