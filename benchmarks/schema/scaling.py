"""A record of the scaling benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness.workload import Workload
from benchmarks.schema.facts import Agreement, ProviderFacts
from benchmarks.schema.record import Record, Status

Axis = Literal["steps", "size_px", "people", "images"]


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """One point of an axis; the others stay at the base's. flop: of the whole request."""

    axis: Axis
    value: int
    status: Status = Status.MEASURED
    p50_ms: float
    flop: int
    gflop_per_s: float


@dataclass(frozen=True, kw_only=True)
class LineFit:
    """Milliseconds and FLOPs along an axis, each as a line; r2: of the milliseconds."""

    intercept_ms: float
    slope_ms: float
    r2: float
    intercept_flop: float
    slope_flop: float


@dataclass(frozen=True, kw_only=True)
class PowerFit:
    """Milliseconds and FLOPs along an axis, each as a power of it."""

    power_of_ms: float
    power_of_flop: float


Fits = Mapping[Axis, LineFit | PowerFit]


@dataclass(frozen=True, kw_only=True)
class ScalingFacts(ProviderFacts):
    """base: the middle of the other axes. pictures: at each point."""

    base: Workload
    pictures: int
    agreement: Agreement
    fits: Fits


@dataclass(frozen=True, kw_only=True)
class ScalingRecord(Record):
    facts: ScalingFacts
    rows: tuple[ScalingRow, ...]
