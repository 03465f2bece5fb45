"""A record of the kernels benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.record import Record


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """Microseconds a step of each implementation, medians and 90th percentiles."""

    kernel: str
    images: int
    height_px: int
    width_px: int
    kernel_us: float
    kernel_p90_us: float
    eager_us: float
    eager_p90_us: float
    compiled_us: float
    compiled_p90_us: float
    times_eager: float
    times_compiled: float


@dataclass(frozen=True, kw_only=True)
class KernelsFacts:
    """just_in_time: "identical" to what Triton compiles here, or why that was not compared."""

    just_in_time: str


@dataclass(frozen=True, kw_only=True)
class KernelsRecord(Record):
    facts: KernelsFacts
    rows: tuple[KernelRow, ...]
