"""Records of what a GPU tells: the script over all parts, and its measurements without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.schema.facts import BundleFacts
from benchmarks.schema.record import Record, Status

# What `python -m benchmarks device` measures, and what the rows of its record are about.
Part = Literal["kernels", "steps", "calls", "fusion", "memory", "8-bit"]


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """One part, its command and how it ended. s: spent, of limit_s. reason: "" where measured."""

    part: str
    command: str
    status: Status
    s: float
    limit_s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """budget_s: for all parts."""

    budget_s: float


@dataclass(frozen=True, kw_only=True)
class GpuRecord(Record):
    facts: GpuFacts
    rows: tuple[PartRow, ...]


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """A kernel's cubin held against the formulas in numpy, at one size."""

    kernel: str
    images: int
    height_px: int
    width_px: int
    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One step of a stage: a picture's stage on the GPU's clock, over its steps."""

    provider: str
    stage: str
    steps: int
    pictures: int
    step_p50_ms: float
    step_p90_ms: float


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """A whole picture on the host's clock. parts_ms: medians of what the runtime tells."""

    provider: str
    steps: int
    pictures: int
    picture_p50_ms: float
    picture_p90_ms: float
    parts_ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class CallRow:
    """One call of a U-Net. rows: guidance passes of all images. captured: replayed as a graph."""

    provider: str
    component: str
    images: int
    rows: int
    size_px: int
    captured: bool
    count: int
    p50_ms: float
    p90_ms: float
    ms_per_image: float
    workspace_nbytes: int


@dataclass(frozen=True, kw_only=True)
class FusionRow:
    """A fusion step both ways; taken: which one stays. reason: why it was not measured, else ""."""

    provider: str
    images: int
    size_px: int
    serial_ms: float | None
    concurrent_ms: float | None
    taken: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """taken_nbytes: what the GPU has less of once a picture was drawn, context included."""

    provider: str
    images: int
    total_nbytes: int
    free_before_nbytes: int
    taken_nbytes: int


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """A point that was not measured. status: skipped where it cannot be here, else failed."""

    provider: str
    point: str
    status: Status
    reason: str


@dataclass(frozen=True, kw_only=True)
class EightBitRow:
    """One call of a U-Net in 8 bits, for one image, beside the same call in half precision.

    form: as it is published, or another way to quantize. finite: whether every number of the
    prediction is; largest, relative_l2 (from half precision's) are None where not.
    """

    provider: str
    component: str
    quantization: str
    form: str
    finite: bool
    largest: float | None
    relative_l2: float | None
    p50_ms: float
    half_p50_ms: float
    times_as_fast: float


Row = CheckRow | StageRow | PictureRow | CallRow | FusionRow | MemoryRow | EightBitRow | PointRow


@dataclass(frozen=True, kw_only=True)
class DeviceFacts(BundleFacts):
    """what: the part that this record is of."""

    what: Part


@dataclass(frozen=True, kw_only=True)
class DeviceRecord(Record):
    facts: DeviceFacts
    rows: tuple[Row, ...]
