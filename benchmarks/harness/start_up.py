"""Start-up in fresh processes: import, open, first picture, and the memory that all of it takes.

Imports the runtime alone, as a user's program does, so that memory and time are the runtime's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.analysis.stats import summary
from benchmarks.harness.worker import Answer, Message, Worker
from benchmarks.harness.workload import Workload
from runtime import FaceDiffuser


def started(
    bundle: str, provider: str, threads: int | None, workload: Workload, starts: int
) -> dict[str, float]:
    """Medians over so many processes, one after the other."""
    runs: list[dict[str, float]] = []
    for _ in range(starts):
        arguments = {
            "bundle": bundle, "provider": provider, "threads": threads, "workload": vars(workload),
        }  # fmt: skip
        with Worker(drawing, arguments) as worker:
            opened, first, second = worker.started, worker.ask(requests=1), worker.ask(requests=1)
        runs.append(
            {
                "import_s": opened["import_s"],
                "open_s": opened["load_s"],
                "first_picture_s": first["ends"][0] - first["starts"][0],
                "second_picture_s": second["ends"][0] - second["starts"][0],
                "peak_rss_open_nbytes": opened["peak_rss_nbytes"],
                "peak_rss_nbytes": second["peak_rss_nbytes"],
            }
        )
    return {name: summary([run[name] for run in runs]).p50 for name in runs[0]}


def drawing(bundle: str, provider: str, threads: int | None, workload: Mapping[str, Any]) -> Answer:
    """In a worker: open, then draw as many requests as a message asks for, one after the other.

    Answers when each started and ended, on the monotonic clock that all processes share.
    """
    face_diffuser = FaceDiffuser.open(bundle, provider=provider, threads=threads)
    request = Workload(**workload).request()

    def draw(message: Message) -> dict[str, Any]:
        starts, ends = [], []
        for _ in range(message["requests"]):
            starts.append(time.monotonic())
            face_diffuser.generate(request)
            ends.append(time.monotonic())
        return {"starts": starts, "ends": ends}

    return draw
