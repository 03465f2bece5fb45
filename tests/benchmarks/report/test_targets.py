"""Targets beside made-up records: reached, missed, and not measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.report.targets import target_rows
from tests.benchmarks import made_up


def raced(**times_as_long: float) -> dict[str, Any]:
    """A race at full size; the names have underscores for blanks."""
    common = {"work": "step", "size_px": 512, "status": "measured"}
    rows: list[dict[str, Any]] = [common | {"peer": "this toolkit"}]
    rows += [
        common | {"peer": name.replace("_", " "), "times_as_long": ratio}
        for name, ratio in times_as_long.items()
    ]
    rows.append(common | {"peer": "OpenVINO bf16", "status": "refused", "reason": made_up.MARK})
    return made_up.entry("peers", rows)


def started(open_s: float, **changes: Any) -> dict[str, Any]:
    start = {"open_s": open_s, "peak_rss_over_weights": 1.7}
    provider = {"host_share": {"fusion": 0.01}, "start": start}
    facts = {"native_px": 512, "providers": {"openvino": provider}}
    return made_up.entry("latency", [], facts=facts | changes)


def verdicts(*, peers: list[Any], latency: list[Any]) -> dict[str, tuple[str, str]]:
    rows = target_rows({"peers": peers, "latency": latency})
    return {row["target"]: (row["measured"], row["reached"]) for row in rows}


def test_speed_is_held_against_eager_pytorch_and_the_best_accurate_peer() -> None:
    race = raced(eager_fp32=1.2, eager_bf16=0.7, this_toolkit_on_OpenVINO=0.5)
    assert verdicts(peers=[race], latency=[]) == {
        "one fusion step, onnxruntime-cpu: times as fast as eager fp32": ("1.2", "no"),
        "one fusion step, onnxruntime-cpu: times as fast as the best peer, eager bf16": (
            "0.7", "no",
        ),
        "one fusion step, openvino: times as fast as eager fp32": ("2.4", "yes"),
        "one fusion step, openvino: times as fast as the best peer, eager bf16": ("1.4", "yes"),
    }  # fmt: skip


@pytest.mark.parametrize(("open_s", "reached"), [(14.0, "yes"), (16.0, "no")])
def test_start_up_and_memory_have_upper_bounds(open_s: float, reached: str) -> None:
    found = verdicts(peers=[], latency=[started(open_s)])
    assert found["seconds to open, openvino"] == (f"{open_s:g}", reached)
    assert found["peak resident memory over the weights as computed, openvino"] == ("1.7", "no")
    assert found["share of a fusion step outside the U-Nets, openvino"] == ("0.01", "yes")


def test_small_models_and_gpus_tell_nothing_of_the_targets() -> None:
    machine = {"cpu": made_up.MARK, "gpu": "a GPU"}
    small = started(1.0, native_px=128)
    assert verdicts(peers=[], latency=[small, started(1.0) | {"machine": machine}]) == {}
    race = raced(eager_fp32=2.0)
    assert verdicts(peers=[race | {"machine": machine}], latency=[]) == {}
