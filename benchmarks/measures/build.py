"""Time and peak memory of each step of an export.

    python -m benchmarks build [--quick] [--model shipped | random] [--fp32]

The build runs in a process of its own and says what it does; meanwhile its memory, and that of the
processes it starts, is looked at every SAMPLE_S seconds. Quick builds two components alone.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.harness.measure import Measure
from benchmarks.harness.memory import tree_rss_nbytes
from benchmarks.harness.options import SourceName, SourceOptions, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.harness.worker import Worker
from benchmarks.schema.build import BuildFacts, BuildRecord, BuildRow
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


@dataclass(frozen=True, kw_only=True)
class BuildTimeOptions(SourceOptions):
    fp32: bool = field(default=False, metadata=flag("build in single precision"))


@dataclass(frozen=True)
class SaidLine:
    """at: seconds of the clock that all processes share."""

    at: float
    text: str


@dataclass(frozen=True)
class Said:
    """All that a build said."""

    lines: tuple[SaidLine, ...]


def measured_build(options: BuildTimeOptions) -> BuildRecord:
    """A row per step in the order of the build, then one for the whole."""
    source = options.source() or SourceName()
    precision = Precision.FP32 if options.fp32 else Precision.FP16
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "out": Path(folder, "bundle"), "source": source, "precision": precision,
            "quick": options.quick,
        }  # fmt: skip
        with Worker(building, Said, arguments) as worker:
            idle = tree_rss_nbytes(worker.pid)
            with Sampler(worker.pid) as sampler:
                said = worker.ask()
        nbytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    facts = BuildFacts(
        model=source.model, precision=precision, rss_before_nbytes=idle, bundle_nbytes=nbytes
    )
    rows = step_rows(said.lines, sampler.samples)
    return BuildRecord(header=header_of("build", options, gpu=None), facts=facts, rows=tuple(rows))


def building(
    out: Path, source: SourceName, precision: Precision, *, quick: bool
) -> Callable[[], Said]:
    """In a worker: build when asked; answers what was said, and when."""
    lines: list[SaidLine] = []

    def say(text: str) -> None:
        lines.append(SaidLine(time.monotonic(), text))

    def build() -> Said:
        model = source.opened()
        options = BuildOptions(precision=precision)
        if quick:
            for component in QUICK_COMPONENTS:
                progress = partial(_say_of, say, component)
                build_component(out, component, model, dimensions_of(model), options, progress)
        else:
            build_bundle(out, model, options, say, draw=draw)
        say("done")
        return Said(tuple(lines))

    return build


def step_rows(said: Sequence[SaidLine], samples: Sequence[Sample]) -> list[BuildRow]:
    """Each said line until the next, with the most memory that was seen in between."""
    steps = [line for line in said if _RESULT not in line.text]
    ends = [line.at for line in said]
    rows = []
    for step in steps[:-1]:
        end = min(at for at in ends if at > step.at or at == ends[-1])
        rows.append(_step_row(step.text, step.at, end, samples))
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


def _step_row(text: str, start: float, end: float, samples: Sequence[Sample]) -> BuildRow:
    seen = [nbytes for at, nbytes in samples if start <= at <= end]
    return BuildRow(step=text, s=end - start, peak_rss_nbytes=max(seen, default=None))


def _say_of(say: Callable[[str], None], component: Component, text: str) -> None:
    say(f"{component}: {text}")


MEASURE = Measure(options=BuildTimeOptions, measure=measured_build, text=table_of)
