"""A record of the serving benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.schema.facts import ProviderFacts
from benchmarks.schema.record import Record


@dataclass(frozen=True, kw_only=True)
class OverheadRow:
    """One request after the other: what a client waits beside the engine's own time.

    overhead: the client's time less the engine's and the encoder's, and less what the embedded call
    takes beside the engine's time (call; None in older records). ratio: pictures
    a second through HTTP, two clients in flight, over those of the embedded loop, in turns; low,
    high: its confidence interval.
    """

    kind: str = "overhead"
    pictures: int
    engine_p50_ms: float
    encode_p50_ms: float
    call_p50_ms: float | None = None
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
    """The server's resident memory before the first request, after so many each, and at the end."""

    kind: str = "memory"
    requests: int
    each: int
    rss_nbytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LossRow:
    """Clients that never stop asking, while something that draws or serves is taken away.

    kind: "kill", an engine's process by SIGKILL; "stop", the server by SIGTERM; "update", a server
    by SIGTERM when its successor is ready; "scale-down", an engine, because fewer clients ask.
    times: how often. admitted: requests that a server took in; lost: those of them without a
    picture, wrong: with one that is not the embedded API's of the same seed, drawn_again: whose
    steps began anew. refused: by 429 or 503 with Retry-After, or no server there. longest_s: from a
    request's admission to its picture.
    """

    kind: str
    times: int
    admitted: int
    lost: int
    wrong: int
    drawn_again: int
    refused: int
    longest_s: float
    took_s: float


@dataclass(frozen=True, kw_only=True)
class ServingFacts(ProviderFacts):
    """ready_s: from the start of the process to its first answer 200 at /readyz. engines: on a Ray
    cluster; None where the server's process draws."""

    steps: int
    size_px: int
    ready_s: float
    engines: int | None = None


@dataclass(frozen=True, kw_only=True)
class ServingRecord(Record):
    facts: ServingFacts
    rows: tuple[OverheadRow | LoadRow | CancelRow | MemoryRow | LossRow, ...]
