"""A record of the comparison with peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.peers.work import WorkKind
from benchmarks.schema.facts import ProviderFacts
from benchmarks.schema.record import Record, Status

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """Who was run on which work, and how often."""

    work: WorkKind
    steps: int
    size_px: int
    peer: str
    threads: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class MeasuredPeer(PeerRow):
    """Ours, run alone. relative_l2: from the reference, of at most `bound`."""

    relative_l2: float
    bound: float
    status: Status = Status.MEASURED
    p50_ms: float
    spread: float
    load_s: float
    peak_rss_nbytes: int
    gpu_nbytes: int | None


@dataclass(frozen=True, kw_only=True)
class ComparedPeer(MeasuredPeer):
    """A peer, run in turns with ours.

    times_as_long: the median of the rounds' ratios, peer over ours. low, high: its 95 % interval.
    """

    against: str
    against_p50_ms: float
    times_as_long: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class UnmeasuredPeer(PeerRow):
    """A peer that cannot run here, or that computes something else."""

    status: Status
    reason: str


@dataclass(frozen=True, kw_only=True)
class PeersFacts(ProviderFacts):
    """bound: on the distance from the reference. device: the peers'."""

    bound: float
    rounds: int
    device: Device


@dataclass(frozen=True, kw_only=True)
class PeersAloneFacts:
    """The same where no bundle took part."""

    bound: float
    rounds: int
    threads: int
    device: Device
    provider: None = None


@dataclass(frozen=True, kw_only=True)
class PeersRecord(Record):
    facts: PeersFacts | PeersAloneFacts
    rows: tuple[ComparedPeer | MeasuredPeer | UnmeasuredPeer, ...]

    def measured(self) -> list[MeasuredPeer]:
        return [row for row in self.rows if isinstance(row, MeasuredPeer)]

    def compared(self) -> list[ComparedPeer]:
        return [row for row in self.rows if isinstance(row, ComparedPeer)]
