"""A record of the roofline benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.facts import Agreement, BundleFacts, Peaks
from benchmarks.schema.record import Record, Status
from engines.contract import Component


@dataclass(frozen=True, kw_only=True)
class RooflineRow:
    """One call of a component. rows: its leading axis.

    least, unfused: bytes that must move (weights, inputs, outputs, once), and that all operations
    move one by one. roof_ms: the least time that the peaks allow.
    """

    component: Component
    status: Status = Status.MEASURED
    rows: int
    p50_ms: float
    gflop: float
    gflop_per_s: float
    share_of_matrix_peak: float
    least_mb: float
    unfused_mb: float
    least_gb_per_s: float
    share_of_memory_peak: float
    flop_per_byte: float
    roof_ms: float
    share_of_roof: float


@dataclass(frozen=True, kw_only=True)
class RooflineFacts(BundleFacts):
    """peaks: of the processor. gpu_peaks: None without a GPU."""

    agreement: Agreement
    peaks: Peaks
    gpu_peaks: Peaks | None = None


@dataclass(frozen=True, kw_only=True)
class RooflineRecord(Record):
    facts: RooflineFacts
    rows: tuple[RooflineRow, ...]
