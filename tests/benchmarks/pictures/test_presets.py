"""The presets in turns: what is drawn, and what is told of the times."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.harness.workload import Workload
from benchmarks.pictures import presets as measuring
from benchmarks.pictures.presets import Turns, preset_rows, presets_in_turns
from benchmarks.pictures.record import PresetRow
from runtime import FaceDiffuser, Preset, Request

SMALL = Workload(people=1, size_px=64)


def _turns(times: dict[str, list[float]]) -> Turns:
    drawn: Any = SimpleNamespace(
        request=SimpleNamespace(num_inference_steps=7),
        evaluations=9,
        timings_ms={"text": 1.0, "references": 2.0, "scene": 50.0, "decode": 4.0, "total": 60.0},
    )
    return Turns({Preset(name): each for name, each in times.items()}, dict.fromkeys(Preset, drawn))


def test_ratios_are_of_the_same_round_and_the_quality_preset_has_none() -> None:
    # The machine is twice as slow in the second round, and three times in the third.
    quality, balanced, fast = preset_rows(
        _turns({"quality": [60, 120, 180], "balanced": [20, 40, 60], "fast": [10, 20, 45]})
    )
    assert (quality.times_as_fast, quality.low, quality.high) == (None, None, None)
    assert (balanced.times_as_fast, balanced.low, balanced.high) == (3, 3, 3)
    assert (fast.times_as_fast, fast.low, fast.high) == (6, 4, 6)
    assert fast == PresetRow(
        preset="fast", steps=7, evaluations=9, p50_ms=20, coders_ms=7, times_as_fast=6, low=4,
        high=6,
    )  # fmt: skip


def test_one_round_gives_a_ratio_without_an_interval() -> None:
    _, balanced, _ = preset_rows(_turns({"quality": [60], "balanced": [20], "fast": [10]}))
    assert (balanced.times_as_fast, balanced.low, balanced.high) == (3, None, None)


def test_every_round_draws_each_preset_as_it_is_and_the_warm_up_does_not_count(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Preset | None, int]] = []
    generate = FaceDiffuser.generate

    def drawn(self: FaceDiffuser, request: Request) -> Any:
        asked.append((request.preset, request.num_inference_steps))
        return generate(self, request)

    monkeypatch.setattr(FaceDiffuser, "generate", drawn)
    monkeypatch.setattr(measuring, "_WARM_UP_STEPS", 3)
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        turns = presets_in_turns(opened, 2, SMALL)
    whole = {(Preset.QUALITY, 50), (Preset.BALANCED, 20), (Preset.FAST, 10)}
    assert asked[:3] == [(preset, 3) for preset in Preset]
    assert [{*asked[3:6]}, {*asked[6:]}] == [whole, whole]
    assert {len(times) for times in turns.times.values()} == {2}
    found = {row.preset: (row.steps, row.evaluations) for row in preset_rows(turns)}
    assert found == {"quality": (50, 165), "balanced": (20, 48), "fast": (10, 24)}
    assert all(0 < row.coders_ms < row.p50_ms for row in preset_rows(turns))
