"""The backends of the runtime on this machine: which can run, and why not the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import gpu_facts
from engines.bundle import Bundle
from engines.contract import CONTRACTS, Component
from engines.engine import Array, Engine
from engines.onnxruntime_engine import open_on_cpu
from runtime import FaceDiffuser
from runtime.engine_pool import EnginePool

CPU = "onnxruntime-cpu"
GPU_PROVIDERS = ("tensorrt", "onnxruntime-cuda")


@dataclass(frozen=True)
class EngineCall:
    """One enqueue of a component, on time.perf_counter's clock in seconds."""

    component: Component
    start: float
    end: float

    @property
    def ms(self) -> float:
        return (self.end - self.start) * 1e3


@dataclass
class CallLog:
    """What the engines did, in order, cleared by its reader, and the buffers they are bound to."""

    calls: list[EngineCall] = field(default_factory=list)
    buffers: dict[Component, Mapping[str, Array]] = field(default_factory=dict)

    def output(self, component: Component) -> Array:
        """A copy of what a component computed last."""
        return self.buffers[component][CONTRACTS[component].outputs[0].name].copy()

    def taken(self) -> list[EngineCall]:
        """The calls since the last reading."""
        calls, self.calls = self.calls, []
        return calls


class LoggedEngine:
    """An engine whose enqueues are written into a log: two readings of the clock each."""

    def __init__(self, engine: Engine, component: Component, log: CallLog) -> None:
        self._engine, self._component, self._log = engine, component, log
        self.provider = engine.provider

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._engine.dtypes

    def bind(self, buffers: Mapping[str, Array]) -> None:
        self._engine.bind(buffers)
        self._log.buffers[self._component] = buffers

    def enqueue(self) -> None:
        start = time.perf_counter()
        self._engine.enqueue()
        self._log.calls.append(EngineCall(self._component, start, time.perf_counter()))

    def close(self) -> None:
        self._engine.close()


@dataclass(frozen=True)
class OpenedRoad:
    """A bundle open on one provider. log: its engine calls, None where a graph hides them."""

    face_diffuser: FaceDiffuser
    log: CallLog | None


def providers(bundle: Bundle) -> dict[str, str | None]:
    """Every provider that the toolkit has -> None, or why it cannot be measured here."""
    reasons: dict[str, str | None] = {}
    for provider in GPU_PROVIDERS:
        missing = "no NVIDIA GPU" if gpu_facts() is None else "the runtime has no such provider yet"
        reasons[provider] = missing
    return {CPU: None} | reasons


@contextmanager
def opened_road(path: str | Path, provider: str, threads: int | None) -> Iterator[OpenedRoad]:
    """Open a bundle on a provider, with its engine calls logged where they are host calls."""
    log = CallLog()

    def open_logged(bundle: Bundle, component: Component, cores: int | None) -> Engine:
        return LoggedEngine(open_on_cpu(bundle, component, cores), component, log)

    if provider != CPU:
        raise ValueError(f"{provider} is not measured; providers() says why")
    bundle = Bundle.open(path)
    engines = EnginePool(bundle, threads=threads, open_engine=open_logged)
    with FaceDiffuser(bundle, engines) as face_diffuser:
        yield OpenedRoad(face_diffuser, log)
