"""A record of the latency benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness.workload import Workload
from benchmarks.schema.facts import Agreement, BundleFacts
from benchmarks.schema.record import Record, Status

# "picture": the whole, encoding, all U-Net calls, decoding. "stage": all its steps. "step": one
# step of a stage, in parts. "component": one engine call. "host": time of a step outside engines.
Kind = Literal["picture", "stage", "step", "component", "host"]


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """One thing that was timed; a component's and a step's samples are single calls and steps.

    per_picture: how often it comes in one picture. count: of samples. spread: the interquartile
    range over the median.
    """

    provider: str
    status: Status = Status.MEASURED
    kind: Kind
    name: str
    per_picture: float
    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class ProviderSkipped:
    """A provider that was not measured.

    Skipped where this machine or the bundle is not made for it; refused where it draws something
    else; failed where it broke.
    """

    provider: str
    status: Status = Status.SKIPPED
    reason: str


@dataclass(frozen=True, kw_only=True)
class StartUp:
    """One start: seconds and bytes; of several starts the medians."""

    import_s: float
    open_s: float
    first_picture_s: float
    second_picture_s: float
    peak_rss_open_nbytes: float
    peak_rss_nbytes: float


@dataclass(frozen=True, kw_only=True)
class StartFacts(StartUp):
    """peak_rss_over_weights: over the weights in the precision that computes."""

    starts: int
    peak_rss_over_weights: float


@dataclass(frozen=True, kw_only=True)
class ProviderLatency:
    """One provider. host_share: by stage, the share of a step that no engine accounts for."""

    agreement: Agreement
    host_share: Mapping[str, float]
    gpu_nbytes: int | None
    start: StartFacts | None = None


@dataclass(frozen=True, kw_only=True)
class LatencyFacts(BundleFacts):
    """providers: those that were measured."""

    workload: Workload
    providers: Mapping[str, ProviderLatency]


@dataclass(frozen=True, kw_only=True)
class LatencyRecord(Record):
    facts: LatencyFacts
    rows: tuple[LatencyRow | ProviderSkipped, ...]

    def measured(self) -> list[LatencyRow]:
        return [row for row in self.rows if isinstance(row, LatencyRow)]
