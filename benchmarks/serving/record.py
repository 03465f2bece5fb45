"""A record of the serving benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.facts import ProviderFacts
from benchmarks.schema.record import Record


@dataclass(frozen=True, kw_only=True)
class OverheadRow:
    """One request after the other: what a client waits beside the engine's own time.

    overhead: the client's time less the engine's and the encoder's. ratio: pictures a second
    through HTTP, two clients in flight, over those of the embedded loop, in turns; low, high: its
    confidence interval.
    """

    kind: str = "overhead"
    pictures: int
    engine_p50_ms: float
    encode_p50_ms: float
    overhead_p50_ms: float
    overhead_p99_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, kw_only=True)
class LoadRow:
    """Requests that arrive by chance (Poisson), whatever becomes of those before them.

    offered: pictures that arrive, over those that one client draws alone in the time. within_s:
    goodput counts the pictures that came in this time. refused: by 429 or 503 with Retry-After.
    failed: all other answers. Latencies are of drawn pictures.
    """

    kind: str = "load"
    offered: float
    requests: int
    drawn: int
    refused: int
    failed: int
    pictures_per_s: float
    goodput_per_s: float
    within_s: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, kw_only=True)
class CancelRow:
    """From a client's DELETE, or its hang-up, to the end of the work, as a client sees it.

    in_time: how many ended within one step and 50 ms. step_ms: the longest step of the trial.
    """

    kind: str
    count: int
    in_time: int
    step_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """The server's resident memory after a tenth of the requests, and after all of them."""

    kind: str = "memory"
    requests: int
    rss_tenth_nbytes: int
    rss_end_nbytes: int


@dataclass(frozen=True, kw_only=True)
class ServingFacts(ProviderFacts):
    """ready_s: from the start of the process to its first answer 200 at /readyz."""

    steps: int
    size_px: int
    ready_s: float


@dataclass(frozen=True, kw_only=True)
class ServingRecord(Record):
    facts: ServingFacts
    rows: tuple[OverheadRow | LoadRow | CancelRow | MemoryRow, ...]
