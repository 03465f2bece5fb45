"""Time and peak memory of each step of an export.

    python -m benchmarks build [--quick] [--model shipped | random] [--fp32]

The build runs in a process of its own and says what it does; meanwhile its memory, and that of the
processes it starts, is looked at every SAMPLE_S seconds. Quick builds two components alone.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.memory import tree_rss_nbytes
from benchmarks.harness.model_source import SourceName, add_source_flags, source_name
from benchmarks.harness.record import record
from benchmarks.harness.worker import Answer, Message, Worker
from engines.bundle.manifest import Precision
from engines.contract import Component
from export.build import draw
from export.bundle import build_bundle
from export.checkpoint.model_facts import dimensions_of
from export.component import build_component
from export.options import BuildOptions

SAMPLE_S = 0.02
QUICK_COMPONENTS = (Component.FUSION_MLP, Component.TEXT_ENCODER)
# A line that says how near a graph came ends a step and starts none.
_RESULT = " within "

Sample = tuple[float, int]


def add_flags(flags: argparse.ArgumentParser) -> None:
    add_source_flags(flags)
    flags.add_argument("--fp32", action="store_true", help="build in single precision")


def measured(*, quick: bool, fp32: bool, **source: Any) -> dict[str, Any]:
    """A row per step in the order of the build, then one for the whole."""
    name = source_name(source, None) if any(source.values()) else SourceName()
    precision = Precision.FP32 if fp32 else Precision.FP16
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "out": f"{folder}/bundle", "source": name.to_json(), "precision": precision.value,
            "quick": quick,
        }  # fmt: skip
        with Worker(building, arguments) as worker:
            idle = tree_rss_nbytes(worker.pid)
            with Sampler(worker.pid) as sampler:
                said = worker.ask()["said"]
        nbytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    rows = step_rows([(line["at"], line["text"]) for line in said], sampler.samples)
    facts = {
        "model": name.model, "precision": precision.value, "rss_before_nbytes": idle,
        "bundle_nbytes": nbytes,
    }  # fmt: skip
    return record("build", rows, gpu=None, facts=facts)


def building(out: str, source: Mapping[str, Any], precision: str, *, quick: bool) -> Answer:
    """In a worker: build when a message comes; answers what was said, and when."""
    said: list[dict[str, Any]] = []

    def say(text: str) -> None:
        said.append({"at": time.monotonic(), "text": text})

    def build(_: Message) -> dict[str, Any]:
        model = SourceName(**source).opened()
        options = BuildOptions(precision=Precision(precision))
        if quick:
            for component in QUICK_COMPONENTS:
                progress = partial(_say_of, say, component)
                build_component(
                    Path(out), component, model, dimensions_of(model), options, progress
                )
        else:
            build_bundle(Path(out), model, options, say, draw=draw)
        say("done")
        return {"said": said}

    return build


def step_rows(said: Sequence[tuple[float, str]], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Each said line until the next, with the most memory that was seen in between.

    peak_rss_nbytes is null where a step was over before anybody looked.
    """
    steps = [(at, text) for at, text in said if _RESULT not in text]
    ends = [at for at, _ in said]
    rows = []
    for start, text in steps[:-1]:
        end = min(at for at in ends if at > start or at == ends[-1])
        rows.append(_step_row(text, start, end, samples))
    return [*rows, _step_row("whole build", ends[0], ends[-1], samples)]


class Sampler:
    """Looks at a process's memory in a thread while the block runs."""

    def __init__(self, process: int) -> None:
        self.samples: list[Sample] = []
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            first = tree_rss_nbytes(self._process)
            # A child that has not started its program yet is its parent once more, for a moment.
            time.sleep(SAMPLE_S / 10)
            nbytes = min(first, tree_rss_nbytes(self._process))
            self.samples.append((time.monotonic(), nbytes))


def _step_row(text: str, start: float, end: float, samples: Sequence[Sample]) -> dict[str, Any]:
    seen = [nbytes for at, nbytes in samples if start <= at <= end]
    return {"step": text, "s": end - start, "peak_rss_nbytes": max(seen, default=None)}


def _say_of(say: Any, component: Component, text: str) -> None:
    say(f"{component}: {text}")
