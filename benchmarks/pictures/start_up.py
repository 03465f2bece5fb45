"""Start-up in fresh processes: import, open, first picture, and the memory that all of it takes.

Imports the runtime alone, as a user's program does, so that memory and time are the runtime's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.analysis.stats import summary
from benchmarks.harness.memory import peak_rss_nbytes
from benchmarks.harness.worker import Worker
from benchmarks.harness.workload import Workload
from benchmarks.schema.latency import StartUp
from runtime import FaceDiffuser


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """When each request started and ended, in seconds of the clock that all processes share."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    peak_rss_nbytes: int


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a drawing process opens, and what it draws. threads: None takes every processor."""

    bundle: Path
    provider: str
    threads: int | None
    workload: Workload

    def worker(self, threads: int | None = None) -> Worker[Drawn]:
        """threads: of every library in it, where they are to be limited."""
        return Worker(drawing, Drawn, {"work": self}, threads=threads)


def median_start_up(work: Drawing, starts: int) -> StartUp:
    """Medians over so many processes, one after the other."""
    runs = [asdict(_start_up(work)) for _ in range(starts)]
    return StartUp(**{name: summary([run[name] for run in runs]).p50 for name in runs[0]})


def _start_up(work: Drawing) -> StartUp:
    with work.worker() as worker:
        opened, first, second = worker.started, worker.ask(requests=1), worker.ask(requests=1)
    return StartUp(
        import_s=opened.import_s,
        open_s=opened.load_s,
        first_picture_s=first.ends[0] - first.starts[0],
        second_picture_s=second.ends[0] - second.starts[0],
        peak_rss_open_nbytes=opened.peak_rss_nbytes,
        peak_rss_nbytes=second.peak_rss_nbytes,
    )


def drawing(work: Drawing) -> Callable[[int], Drawn]:
    """In a worker: open, then draw as many requests as are asked for, one after the other."""
    face_diffuser = FaceDiffuser.open(work.bundle, provider=work.provider, threads=work.threads)
    request = work.workload.request()

    def draw(requests: int) -> Drawn:
        starts, ends = [], []
        for _ in range(requests):
            starts.append(time.monotonic())
            face_diffuser.generate(request)
            ends.append(time.monotonic())
        return Drawn(starts=tuple(starts), ends=tuple(ends), peak_rss_nbytes=peak_rss_nbytes())

    return draw
