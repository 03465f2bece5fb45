"""What the toolkit set itself for CPUs at Stable Diffusion 1.5's size, beside what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.peers.registry import OURS, OURS_ON_OPENVINO
from benchmarks.peers.work import WorkKind
from benchmarks.report.quantities import three
from benchmarks.schema.latency import LatencyRecord
from benchmarks.schema.peers import ComparedPeer, PeersRecord
from benchmarks.schema.record import Record

FULL_PX = 512
EAGER = "eager fp32"
MIN_SPEED_UP = 1.25
# In 8 bits, over eager PyTorch and over the fastest of all that compute in float32.
MIN_INT8_OVER_EAGER, MIN_INT8_OVER_FLOAT32 = 1.8, 1.5
MAX_HOST_SHARE = 0.02
MAX_OPEN_S = 15.0
MAX_RSS = 1.6

_OWN = {OURS: "onnxruntime-cpu", OURS_ON_OPENVINO: "openvino"}
_FLOAT32 = re.compile(rf"float32|fp32|plain export|^{OURS}$")
_INT8 = re.compile(rf"^{OURS}.*, int8")

# What is known of why a provider misses a target, shown where it does.
_FLOAT32_ALONE = "ONNX Runtime has no bfloat16 kernels for x86; the openvino provider has"
_REASONS = {
    ("onnxruntime-cpu", EAGER): _FLOAT32_ALONE,
    ("onnxruntime-cpu", "best peer"): _FLOAT32_ALONE,
    ("onnxruntime-cpu", "open"): "half weights are cast to float32 and packed at each opening",
    ("openvino", "memory"): "it grows while opening and again with the first picture; which parts "
    "of OpenVINO hold it is not established",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target, what was measured, and what is known of why it is missed."""

    target: str
    wanted: str
    measured: str
    reached: bool
    reason: str | None


def target_rows(records: Iterable[Record]) -> list[Target]:
    """Each target and provider that a full-size record of the CPU tells of; peers first."""
    on_cpu = [record for record in records if record.header.machine.gpu is None]
    peers = [record for record in on_cpu if isinstance(record, PeersRecord)]
    latencies = [record for record in on_cpu if isinstance(record, LatencyRecord)]
    return [
        *(target for record in peers for target in _speed_targets(record)),
        *(
            target
            for record in latencies
            if record.facts.native_px == FULL_PX
            for target in _start_targets(record)
        ),
    ]


def _speed_targets(record: PeersRecord) -> Iterator[Target]:
    """One fusion step against eager PyTorch, and against the fastest peer that is as accurate."""
    # Every ratio is to ours, whose own is 1.
    lasts = {
        row.peer: row.times_as_long if isinstance(row, ComparedPeer) else 1.0
        for row in record.measured()
        if row.work is WorkKind.STEP and row.size_px == FULL_PX
    }
    yield from _int8_targets(lasts)
    others = {name: last for name, last in lasts.items() if not name.startswith(OURS)}
    for name, provider in _OWN.items():
        if name not in lasts or EAGER not in lasts:
            continue
        step = f"one fusion step, {provider}"
        ratio = lasts[EAGER] / lasts[name]
        reason = _REASONS.get((provider, EAGER))
        yield _at_least(MIN_SPEED_UP, f"{step}: times as fast as {EAGER}", ratio, reason)
        best = min(others, key=others.__getitem__)
        ratio, reason = others[best] / lasts[name], _REASONS.get((provider, "best peer"))
        yield _at_least(1.0, f"{step}: times as fast as the best peer, {best}", ratio, reason)


def _int8_targets(lasts: Mapping[str, float]) -> Iterator[Target]:
    """One fusion step in 8 bits against what computes in float32. lasts: of each side, relative."""
    for name in filter(_INT8.search, lasts):
        step = f"one fusion step, {name.removeprefix(OURS).lstrip(' ,')}"
        float32 = {
            each: last
            for each, last in lasts.items()
            if _FLOAT32.search(each) and not _INT8.search(each)
        }
        if EAGER in float32:
            ratio = float32[EAGER] / lasts[name]
            what = f"{step}: times as fast as {EAGER}"
            yield _at_least(MIN_INT8_OVER_EAGER, what, ratio, None)
        if float32:
            best = min(float32, key=float32.__getitem__)
            what = f"{step}: times as fast as the fastest in float32, {best}"
            yield _at_least(MIN_INT8_OVER_FLOAT32, what, float32[best] / lasts[name], None)


def _start_targets(record: LatencyRecord) -> Iterator[Target]:
    """Host time of a fusion step; and, where starts were measured, opening and memory."""
    for provider, facts in record.facts.providers.items():
        if "fusion" in facts.host_share:
            share, reason = facts.host_share["fusion"], _REASONS.get((provider, "host"))
            what = f"share of a fusion step outside the U-Nets, {provider}"
            yield _at_most(MAX_HOST_SHARE, what, share, reason)
        if facts.start is not None:
            open_s, over = facts.start.open_s, facts.start.peak_rss_over_weights
            what, reason = f"seconds to open, {provider}", _REASONS.get((provider, "open"))
            yield _at_most(MAX_OPEN_S, what, open_s, reason)
            what = f"peak resident memory over the weights as computed, {provider}"
            yield _at_most(MAX_RSS, what, over, _REASONS.get((provider, "memory")))


def _at_least(bound: float, target: str, found: float, reason: str | None) -> Target:
    return _target(target, f"at least {bound:g}", found, reason, reached=found >= bound)


def _at_most(bound: float, target: str, found: float, reason: str | None) -> Target:
    return _target(target, f"at most {bound:g}", found, reason, reached=found <= bound)


def _target(target: str, wanted: str, found: float, reason: str | None, *, reached: bool) -> Target:
    return Target(
        target=target,
        wanted=wanted,
        measured=three(found),
        reached=reached,
        reason=None if reached else reason,
    )
