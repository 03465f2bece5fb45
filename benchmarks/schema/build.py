"""A record of the build benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.record import Record
from engines.bundle.manifest import Precision


@dataclass(frozen=True, kw_only=True)
class BuildRow:
    """One step of an export. peak_rss_nbytes: None where it ended between two samples."""

    step: str
    s: float
    peak_rss_nbytes: int | None


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """rss_before_nbytes: of the process before the build, its libraries imported."""

    model: str
    precision: Precision
    rss_before_nbytes: int
    bundle_nbytes: int


@dataclass(frozen=True, kw_only=True)
class BuildRecord(Record):
    facts: BuildFacts
    rows: tuple[BuildRow, ...]
