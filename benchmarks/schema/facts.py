"""Facts that records of several benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.bundle.manifest import Precision


@dataclass(frozen=True)
class Agreement:
    """Distance from the reference. relative_l2: |found - expected| / |expected|."""

    relative_l2: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class BundleFacts:
    """The bundle that was measured. threads: that computed."""

    precision: Precision
    native_px: int
    weights_fp32_nbytes: int
    licenses: tuple[str, ...]
    threads: int


@dataclass(frozen=True, kw_only=True)
class ProviderFacts(BundleFacts):
    """The bundle and the provider that it was opened on."""

    provider: str


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a device can do at most, and no less than what any call of the model reached there.

    flop_per_s: by element type. side: of the square matrices."""

    flop_per_s: Mapping[str, float]
    bytes_per_s: float
    side: int
    peak_rss_nbytes: int
