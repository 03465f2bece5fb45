"""Pictures a second against images per call and concurrent requests, with the knee marked.

    python -m benchmarks throughput [--quick] [--bundle BUNDLE] [--threads N] [--steps N]

An open bundle serves one request at a time, so concurrent requests come from processes, which share
the processors evenly. Every process draws without pause; the rate is all pictures over the time
from the first start to the last end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from benchmarks.analysis.fits import knee
from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import gpu_of, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.machine import memory_nbytes
from benchmarks.harness.measure import Measure
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.options import ProviderOptions, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from benchmarks.pictures.start_up import Drawing
from benchmarks.schema.record import Status
from benchmarks.schema.results import keep
from benchmarks.schema.throughput import (
    PointSkipped,
    ThroughputFacts,
    ThroughputRecord,
    ThroughputRow,
    curves,
)
from engines.bundle.folder import Bundle
from engines.bundle.records import Count
from engines.errors import FaceDiffuserError
from engines.providers import HOST_PROVIDERS
from engines.threads import processors

IMAGES, QUICK_IMAGES = (1, 2, 4, 8), (1, 2)
# What a machine can give to processes that all hold a bundle, before it starts to swap.
MEMORY_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions(ProviderOptions):
    steps: Count = field(default=STEPS, metadata=flag("of each picture", quick=QUICK_STEPS))
    requests: Count = field(default=4, metadata=flag("by each process at each point", quick=1))


@dataclass(frozen=True)
class Point:
    """images: per call. processes: that draw at the same time."""

    images: int
    processes: int


def measured_throughput(options: ThroughputOptions) -> ThroughputRecord:
    """A row per point; raises ReferenceMismatchError."""
    bundle = Bundle.open(options.bundle)
    reference = Reference(source_of(source_name(options, bundle), bundle), bundle.manifest)
    with opened_backend(bundle.path, options.provider, options.threads) as backend:
        agreement = reference.check(backend.face_diffuser)
    images = QUICK_IMAGES if options.quick else IMAGES
    record = ThroughputRecord(
        header=header_of("throughput", options, gpu=gpu_of(options.provider), seeds=[SEED]),
        facts=ThroughputFacts(
            **vars(bundle_facts(bundle, options.threads)),
            provider=options.provider,
            steps=options.steps,
            agreement=agreement,
        ),
        rows=(),
    )
    rows: list[ThroughputRow | PointSkipped] = []
    # Processes on one GPU would each hold both U-Nets; there, only images per call are measured.
    cores = _cores(options) if options.provider in HOST_PROVIDERS else 1
    for row in measured_points(throughput_points(images, cores), options):
        rows.append(row)
        record = replace(record, rows=with_knees(rows))
        keep(record, options.results)
    return record


def _cores(options: ThroughputOptions) -> int:
    return options.threads or processors()


def measured_points(
    points: Iterable[Point], options: ThroughputOptions
) -> Iterator[ThroughputRow | PointSkipped]:
    """Each point as it is done; one that fails, or whose processes need more memory than there is
    by what one process took, is told with its reason."""
    available = MEMORY_SHARE * (memory_nbytes() or math.inf)
    rss = 0
    for point in points:
        if point.processes * rss > available:
            reason = f"{point.processes} processes of {rss} bytes do not fit into memory"
            yield PointSkipped(**vars(point), reason=reason)
            continue
        work = Drawing(
            bundle=options.bundle,
            provider=options.provider,
            threads=max(1, _cores(options) // point.processes),
            workload=Workload(steps=options.steps, images=point.images),
        )
        try:
            row = measured_point(work, point.processes, options.requests)
        except FaceDiffuserError as error:
            # Such as more images than the plans admit, or than the GPU's memory.
            yield PointSkipped(**vars(point), status=Status.FAILED, reason=str(error))
            continue
        if point.processes == 1:
            rss = max(rss, row.peak_rss_nbytes)
        yield row


def throughput_points(images: Iterable[int], cores: int) -> list[Point]:
    """Along images with one process, then along processes with one image: 2, 4, ... all cores."""
    processes = [2**power for power in range(1, 8) if 2**power <= cores]
    if cores > 1 and cores not in processes:
        processes.append(cores)
    return [Point(count, 1) for count in images] + [Point(1, count) for count in processes]


def measured_point(work: Drawing, processes: int, requests: int) -> ThroughputRow:
    """Warm every process up with one request, then let all draw so many at once."""
    with ExitStack() as stack:
        workers = [stack.enter_context(work.worker()) for _ in range(processes)]
        for worker in workers:
            worker.ask(requests=1)
        for worker in workers:
            worker.send(requests=requests)
        answers = [worker.receive() for worker in workers]
    starts = [start for answer in answers for start in answer.starts]
    ends = [end for answer in answers for end in answer.ends]
    request = summary([(end - start) * 1e3 for start, end in zip(starts, ends, strict=True)])
    pictures = len(ends) * work.workload.images
    return ThroughputRow(
        images=work.workload.images,
        processes=processes,
        threads_each=work.threads or processors(),
        pictures=pictures,
        pictures_per_s=pictures / (max(ends) - min(starts)),
        request_p50_ms=request.p50,
        request_p99_ms=request.p99,
        peak_rss_nbytes=max(answer.peak_rss_nbytes for answer in answers),
    )


def with_knees(
    rows: Sequence[ThroughputRow | PointSkipped],
) -> tuple[ThroughputRow | PointSkipped, ...]:
    """Mark, on the curve along images and on that along processes, where more gains no more.

    A curve that still rises where it ends has no knee yet.
    """
    marked = []
    for curve in curves([row for row in rows if isinstance(row, ThroughputRow)]):
        place = knee([row.pictures_per_s for row in curve]) if curve else 0
        marked += curve[place:-1][:1]
    return tuple(
        replace(row, knee=True) if isinstance(row, ThroughputRow) and row in marked else row
        for row in rows
    )


MEASURE = Measure(options=ThroughputOptions, measure=measured_throughput, text=table_of)
