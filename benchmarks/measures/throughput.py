"""Pictures a second against images per call and concurrent requests, with the knee marked.

    python -m benchmarks throughput [--quick] [--bundle BUNDLE] [--threads N] [--steps N]

An open bundle serves one request at a time, so concurrent requests come from processes, which share
the processors evenly. Every process draws without pause; the rate is all pictures over the time
from the first start to the last end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.analysis.fits import knee
from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import gpu_of, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.flags import add_bundle_flags, add_provider_flag
from benchmarks.harness.machine import described, usable_cpus
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.record import Status, record
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.start_up import drawing
from benchmarks.harness.worker import Worker
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from engines.bundle.folder import Bundle

IMAGES, QUICK_IMAGES = (1, 2, 4, 8), (1, 2)
REQUESTS, QUICK_REQUESTS = 4, 1
# What a machine can give to processes that all hold a bundle, before it starts to swap.
MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Point:
    """images: per call. processes: that draw at the same time."""

    images: int
    processes: int


def add_flags(flags: argparse.ArgumentParser) -> None:
    add_bundle_flags(flags)
    add_provider_flag(flags)
    flags.add_argument("--steps", type=int, help=f"(default: {STEPS}, quick {QUICK_STEPS})")
    flags.add_argument("--requests", type=int, help="by each process at each point")


def measured(
    *, quick: bool, bundle: Path, threads: int | None, provider: str, steps: int | None,
    requests: int | None, **source: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row per point; raises ReferenceMismatchError."""
    opened = Bundle.open(bundle)
    reference = Reference(source_of(source_name(source, opened), opened), opened.manifest)
    with opened_backend(bundle, provider, threads) as backend:
        agreement = reference.check(backend.face_diffuser)
    cores = threads or usable_cpus()
    count = requests or (QUICK_REQUESTS if quick else REQUESTS)
    steps = steps or (QUICK_STEPS if quick else STEPS)
    rows: list[dict[str, Any]] = []
    rss = 0
    for point in points(QUICK_IMAGES if quick else IMAGES, cores):
        if point.processes * rss > MEMORY_SHARE * (described()["memory_nbytes"] or float("inf")):
            reason = f"{point.processes} processes of {rss} bytes do not fit into memory"
            rows.append(vars(point) | {"status": Status.SKIPPED.value, "reason": reason})
            continue
        workload = Workload(steps=steps, images=point.images)
        rows.append(row := measured_point(bundle, provider, point, workload, cores, count))
        if point.processes == 1:
            rss = max(rss, row["peak_rss_nbytes"])
    mark_knees(rows)
    facts = bundle_facts(opened, threads) | {
        "provider": provider,
        "steps": steps,
        "agreement": agreement.to_json(),
    }
    return record("throughput", rows, gpu=gpu_of(provider), facts=facts, seeds=[SEED])


def points(images: Iterable[int], cores: int) -> list[Point]:
    """Along images with one process, then along processes with one image: 2, 4, ... all cores."""
    processes = [2**power for power in range(1, 8) if 2**power <= cores]
    if cores > 1 and cores not in processes:
        processes.append(cores)
    return [Point(count, 1) for count in images] + [Point(1, count) for count in processes]


def measured_point(
    bundle: Path, provider: str, point: Point, workload: Workload, cores: int, requests: int
) -> dict[str, Any]:
    """Warm every process up with one request, then let all draw at once."""
    threads = max(1, cores // point.processes)
    arguments = {
        "bundle": str(bundle), "provider": provider, "threads": threads, "workload": vars(workload),
    }  # fmt: skip
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(drawing, arguments, threads=threads))
            for _ in range(point.processes)
        ]
        for worker in workers:
            worker.ask(requests=1)
        for worker in workers:
            worker.send(requests=requests)
        answers = [worker.receive() for worker in workers]
    starts = [start for answer in answers for start in answer["starts"]]
    ends = [end for answer in answers for end in answer["ends"]]
    request = summary([(end - start) * 1e3 for start, end in zip(starts, ends, strict=True)])
    pictures = len(ends) * point.images
    return vars(point) | {
        "status": Status.MEASURED.value,
        "threads_each": threads,
        "pictures": pictures,
        "pictures_per_s": pictures / (max(ends) - min(starts)),
        "request_p50_ms": request.p50,
        "request_p99_ms": request.p99,
        "peak_rss_nbytes": max(answer["peak_rss_nbytes"] for answer in answers),
        "knee": False,
    }


def mark_knees(rows: list[dict[str, Any]]) -> None:
    """Mark, on the curve along images and on that along processes, where more gains no more."""
    done = [row for row in rows if row["status"] == Status.MEASURED]
    for fixed, moving in (("processes", "images"), ("images", "processes")):
        curve = sorted((row for row in done if row[fixed] == 1), key=lambda row: row[moving])
        if curve:
            curve[knee([row["pictures_per_s"] for row in curve])]["knee"] = True
