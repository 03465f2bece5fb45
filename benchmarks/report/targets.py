"""What the toolkit set itself for CPUs at Stable Diffusion 1.5's size, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness.record import Status
from benchmarks.peers.registry import OURS, OURS_ON_OPENVINO
from benchmarks.peers.work import WorkKind

Entry = Mapping[str, Any]
Row = dict[str, Any]

FULL_PX = 512
EAGER = "eager fp32"
MIN_SPEED_UP = 1.25
MAX_HOST_SHARE = 0.02
MAX_OPEN_S = 15.0
MAX_RSS = 1.6

_OWN = {OURS: "onnxruntime-cpu", OURS_ON_OPENVINO: "openvino"}

# What is known of why a provider misses a target, shown where it does.
_FLOAT32_ALONE = "ONNX Runtime has no bfloat16 kernels for x86; the openvino provider has"
_REASONS = {
    ("onnxruntime-cpu", EAGER): _FLOAT32_ALONE,
    ("onnxruntime-cpu", "best peer"): _FLOAT32_ALONE,
    ("onnxruntime-cpu", "open"): "half weights are cast to float32 and packed at each opening",
    ("openvino", "memory"): "it grows while opening and again with the first picture; which parts "
    "of OpenVINO hold it is not established",
}


def target_rows(newest: Mapping[str, Sequence[Entry]]) -> list[Row]:
    """A row per target and provider that a full-size record tells of, the newest first."""
    rows: list[Row] = []
    for entry in newest["peers"]:
        if entry["machine"].get("gpu") is None:
            rows += _peer_rows(entry)
    for entry in newest["latency"]:
        if entry["facts"].get("native_px") == FULL_PX and entry["machine"].get("gpu") is None:
            rows += _latency_rows(entry)
    return rows


def _peer_rows(entry: Entry) -> Iterator[Row]:
    """One fusion step against eager PyTorch, and against the fastest peer that is as accurate."""
    raced = {
        row["peer"]: row
        for row in entry["rows"]
        if row["work"] == WorkKind.STEP.value
        and row.get("size_px") == FULL_PX
        and row["status"] == Status.MEASURED.value
    }
    # Every ratio is to the one at home, whose own is 1.
    lasts = {name: float(row.get("times_as_long", 1.0)) for name, row in raced.items()}
    others = {name: last for name, last in lasts.items() if name not in _OWN}
    for name, provider in _OWN.items():
        if name not in lasts or EAGER not in lasts:
            continue
        step = f"one fusion step, {provider}"
        ratio = lasts[EAGER] / lasts[name]
        reason = _REASONS.get((provider, EAGER))
        yield _row(f"{step}: times as fast as {EAGER}", ratio, MIN_SPEED_UP, reason)
        best = min(others, key=others.__getitem__)
        ratio, reason = others[best] / lasts[name], _REASONS.get((provider, "best peer"))
        yield _row(f"{step}: times as fast as the best peer, {best}", ratio, 1, reason)


def _latency_rows(entry: Entry) -> Iterator[Row]:
    for provider, facts in entry["facts"]["providers"].items():
        share, start = facts["host_share"]["fusion"], facts["start"]
        over = start["peak_rss_over_weights"]
        for about, what, found, most in (
            ("host", "share of a fusion step outside the U-Nets", share, MAX_HOST_SHARE),
            ("open", "seconds to open", start["open_s"], MAX_OPEN_S),
            ("memory", "peak resident memory over the weights as computed", over, MAX_RSS),
        ):
            yield _row(f"{what}, {provider}", found, -most, _REASONS.get((provider, about)))


def _row(target: str, found: float, bound: float, reason: str | None) -> Row:
    """bound: at least it, or, where it is negative, at most its absolute value."""
    reached = found >= bound if bound > 0 else found <= -bound
    sign = "at least" if bound > 0 else "at most"
    return {
        "target": target,
        "wanted": f"{sign} {abs(bound):g}",
        "measured": f"{found:.4g}",
        "reached": "yes" if reached else "no",
        "why not": None if reached else reason,
    }
