"""Pictures drawn through the runtime, taken apart into components, stages and host time."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.harness.backends import EngineCall, OpenedBackend
from benchmarks.harness.workload import Workload
from benchmarks.schema.latency import Kind
from engines.contract import NOISE_PREDICTORS, Component
from runtime import Stage, StepInfo

# (kind, name) -> milliseconds, one sample per call, step or picture.
Samples = dict[tuple[Kind, str], list[float]]


@dataclass
class PictureTimes:
    """What was timed over so many pictures.

    host_shares: by stage, the share of each step that no engine accounts for.
    """

    pictures: int
    samples: Samples = field(default_factory=lambda: defaultdict(list))
    host_shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: Kind, name: str, ms: float) -> None:
        self.samples[kind, name].append(ms)


@dataclass(frozen=True)
class _Step:
    stage: Stage
    start: float
    end: float

    @property
    def ms(self) -> float:
        return (self.end - self.start) * 1e3

    def calls(self, calls: list[EngineCall]) -> list[EngineCall]:
        return [call for call in calls if self.start <= call.start and call.end <= self.end]


def timed_pictures(backend: OpenedBackend, workload: Workload, pictures: int) -> PictureTimes:
    """Draw one picture to warm up, then so many that count."""
    _timed_picture(backend, workload, PictureTimes(0))
    times = PictureTimes(pictures)
    for _ in range(pictures):
        _timed_picture(backend, workload, times)
    return times


def _timed_picture(backend: OpenedBackend, workload: Workload, times: PictureTimes) -> None:
    if backend.log is not None:
        backend.log.taken()
    ends: list[tuple[Stage, float]] = []

    def on_step(info: StepInfo) -> None:
        ends.append((info.stage, time.perf_counter()))

    start = time.perf_counter()
    # A callback makes a GPU's backend wait for each step; without it only whole stages are known.
    result = backend.face_diffuser.generate(
        workload.request(), on_step=on_step if backend.log is not None else None
    )
    total_ms = (time.perf_counter() - start) * 1e3
    times.add("picture", "pipeline", total_ms)
    spent = result.timings_ms
    times.add("picture", "encode", spent.get("text", 0.0) + spent.get("references", 0.0))
    times.add("picture", "decode", spent.get("decode", 0.0))
    for stage in Stage:
        if stage.value in spent:
            times.add("stage", stage.value, spent[stage.value])
    if backend.log is not None:
        _take_apart(backend.log.taken(), ends, times)


def _take_apart(
    calls: list[EngineCall], ends: list[tuple[Stage, float]], times: PictureTimes
) -> None:
    """Components, and each step's parts; the first step starts with its first U-Net call."""
    for call in calls:
        times.add("component", call.component.value, call.ms)
    predictions = [call for call in calls if call.component in NOISE_PREDICTORS]
    times.add("picture", "unet", sum(call.ms for call in predictions))
    start = predictions[0].start
    for number, (stage, end) in enumerate(ends):
        step = _Step(stage, start, end)
        start = end
        # The first step's host work before its first call is part of preparing the request.
        if number:
            _add_step(step, step.calls(predictions), times)


def _add_step(step: _Step, calls: list[EngineCall], times: PictureTimes) -> None:
    engines_ms = sum(call.ms for call in calls)
    host_ms = step.ms - engines_ms
    stage = step.stage.value
    times.add("step", stage, step.ms)
    times.add("host", f"{stage}: between engine calls", host_ms)
    times.host_shares[stage].append(host_ms / step.ms)
    if step.stage is Stage.FUSION:
        for component, name in ((Component.TDM_UNET, "TDM"), (Component.SDM_UNET, "SDM")):
            spent = sum(call.ms for call in calls if call.component is component)
            times.add("step", f"fusion: {name}", spent)
        times.add("step", "fusion: SNF, guidance, scheduler", host_ms)
