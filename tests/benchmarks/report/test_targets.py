"""Targets beside made-up records: reached, missed, and not measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.report.targets import target_rows
from benchmarks.schema.latency import LatencyRecord
from benchmarks.schema.record import Machine, Record
from tests.benchmarks import made_up


def started(open_s: float, native_px: int = 512, **changes: Any) -> LatencyRecord:
    found = made_up.provider_latency(open_s=open_s, peak_rss_over_weights=1.7)
    facts = {"native_px": native_px}
    return made_up.latency_of(providers={"openvino": found}, facts=facts, **changes)


def verdicts(*records: Record) -> dict[str, tuple[str, str]]:
    rows = target_rows(records)
    return {row.target: (row.measured, "yes" if row.reached else "no") for row in rows}


def test_speed_is_held_against_eager_pytorch_and_the_best_accurate_peer() -> None:
    record = made_up.peers_of(
        {"eager fp32": 1.2, "eager bf16": 0.7, "this toolkit on OpenVINO": 0.5}
    )
    assert verdicts(record) == {
        "one fusion step, onnxruntime-cpu: times as fast as eager fp32": ("1.20", "no"),
        "one fusion step, onnxruntime-cpu: times as fast as the best peer, eager bf16": (
            "0.700", "no",
        ),
        "one fusion step, openvino: times as fast as eager fp32": ("2.40", "yes"),
        "one fusion step, openvino: times as fast as the best peer, eager bf16": ("1.40", "yes"),
    }  # fmt: skip


def test_8_bits_are_held_against_eager_pytorch_and_the_fastest_in_float32() -> None:
    record = made_up.peers_of(
        {
            "eager fp32": 1.2, "eager bf16": 0.6, "ONNX Runtime, plain export": 1.1,
            "this toolkit on OpenVINO, float32": 0.9, "this toolkit on OpenVINO, int8": 0.5,
        }
    )  # fmt: skip
    found = verdicts(record)
    step = "one fusion step, on OpenVINO, int8: times as fast as"
    assert found[f"{step} eager fp32"] == ("2.40", "yes")
    fastest = "the fastest in float32, this toolkit on OpenVINO, float32"
    assert found[f"{step} {fastest}"] == ("1.80", "yes")
    # The bundle's other sides are no peers of its own.
    assert "one fusion step, onnxruntime-cpu: times as fast as the best peer, eager bf16" in found
    slower = made_up.peers_of({"eager fp32": 1.2, "this toolkit, int8": 0.8})
    found = verdicts(slower)
    step = "one fusion step, int8: times as fast as"
    assert found[f"{step} eager fp32"] == ("1.50", "no")
    assert found[f"{step} the fastest in float32, this toolkit"] == ("1.25", "no")


@pytest.mark.parametrize(("open_s", "reached"), [(14.0, "yes"), (16.0, "no")])
def test_start_up_and_memory_have_upper_bounds(open_s: float, reached: str) -> None:
    found = verdicts(started(open_s))
    assert found["seconds to open, openvino"] == (f"{open_s:.1f}", reached)
    assert found["peak resident memory over the weights as computed, openvino"] == ("1.70", "no")
    assert found["share of a fusion step outside the U-Nets, openvino"] == ("0.0100", "yes")


def test_small_models_and_gpus_tell_nothing_of_the_targets() -> None:
    machine = Machine(cpu=made_up.MARK, gpu="a GPU")
    assert verdicts(started(1.0, native_px=128), started(1.0, machine=machine)) == {}
    assert verdicts(made_up.peers_of({"eager fp32": 2.0}, machine=machine)) == {}
    assert verdicts(made_up.peers_of({"eager fp32": 2.0}, size_px=128)) == {}
