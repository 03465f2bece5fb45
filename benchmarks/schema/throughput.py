"""A record of the throughput benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.schema.facts import Agreement, ProviderFacts
from benchmarks.schema.record import Record, Status


@dataclass(frozen=True, kw_only=True)
class ThroughputRow:
    """images: per call. processes: that draw at once. knee: more of either gains nothing."""

    images: int
    processes: int
    status: Status = Status.MEASURED
    threads_each: int
    pictures: int
    pictures_per_s: float
    request_p50_ms: float
    request_p99_ms: float
    peak_rss_nbytes: int
    knee: bool = False


@dataclass(frozen=True, kw_only=True)
class PointSkipped:
    """A point that the machine has not the memory for, or that failed."""

    images: int
    processes: int
    status: Status = Status.SKIPPED
    reason: str


@dataclass(frozen=True, kw_only=True)
class ThroughputFacts(ProviderFacts):
    steps: int
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class ThroughputRecord(Record):
    facts: ThroughputFacts
    rows: tuple[ThroughputRow | PointSkipped, ...]

    def knees(self) -> set[tuple[int, int]]:
        """Images and processes of each knee. Where a curve ends no knee was seen."""
        return {
            (row.images, row.processes)
            for curve in curves(self.measured())
            for row in curve[:-1]
            if row.knee
        }

    def measured(self) -> list[ThroughputRow]:
        return [row for row in self.rows if isinstance(row, ThroughputRow)]


def curves(rows: Sequence[ThroughputRow]) -> tuple[list[ThroughputRow], list[ThroughputRow]]:
    """The rows along images per call, and those along processes, each in order."""
    return (
        sorted((row for row in rows if row.processes == 1), key=lambda row: row.images),
        sorted((row for row in rows if row.images == 1), key=lambda row: row.processes),
    )
