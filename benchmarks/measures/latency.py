"""One picture: how long it takes, where the time goes, what it costs to start and in memory.

    python -m benchmarks latency [--quick] [--bundle BUNDLE] [--threads N] [--steps N]

Start-up is measured in a process of its own, of which the operating system may already have the
files in its cache: "cold" is the first picture of a process, not the first after booting.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import PROVIDERS, TORCH, gpu_of, opened_backend, why_not
from benchmarks.harness.bundle_facts import bundle_facts, computed_weights_nbytes
from benchmarks.harness.measure import Measure
from benchmarks.harness.memory import gpu_nbytes
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.options import BundleOptions, flag
from benchmarks.harness.record import ReferenceMismatchError, header_of
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from benchmarks.pictures.start_up import Drawing, median_start_up
from benchmarks.pictures.text import latency_text
from benchmarks.pictures.times import PictureTimes, timed_pictures
from benchmarks.schema.latency import (
    LatencyFacts,
    LatencyRecord,
    LatencyRow,
    ProviderLatency,
    ProviderSkipped,
    StartFacts,
)
from benchmarks.schema.record import Status
from benchmarks.schema.results import keep
from engines.bundle.folder import Bundle
from engines.bundle.records import Count
from engines.errors import FaceDiffuserError, PlanMismatchError, ProviderUnavailableError
from engines.providers import HOST_PROVIDERS
from export.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(BundleOptions):
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)")
    )
    steps: Count = field(default=STEPS, metadata=flag("of each picture", quick=QUICK_STEPS))
    pictures: Count = field(default=10, metadata=flag("after one to warm up", quick=3))
    starts: Count = field(default=3, metadata=flag("processes to start", quick=1))
    provider: tuple[str, ...] = field(
        default=(), metadata=flag("on these alone (default: all that run here)", choices=PROVIDERS)
    )


def measured_latency(options: LatencyOptions) -> LatencyRecord:
    """A row per component, stage and total of each provider; raises ReferenceMismatchError."""
    bundle = Bundle.open(options.bundle)
    source = source_of(source_name(options, bundle), bundle)
    reference = Reference(source, bundle.manifest)
    record = LatencyRecord(
        header=header_of("latency", options, gpu=None, seeds=[SEED]),
        facts=LatencyFacts(
            **vars(bundle_facts(bundle, options.threads)),
            workload=_workload(options),
            providers={},
        ),
        rows=(),
    )
    for provider, reason in why_not().items():
        if options.provider and provider not in options.provider:
            continue
        record = _with_provider(record, provider, reason, options, bundle, source, reference)
        keep(record, options.results)
    return record


def _with_provider(
    record: LatencyRecord,
    provider: str,
    reason: str | None,
    options: LatencyOptions,
    bundle: Bundle,
    source: ModelSource,
    reference: Reference,
) -> LatencyRecord:
    """The record with one more provider, measured, or skipped or failed with its reason.

    A wrong picture ends all on the CPU, where the bundle is at fault; a GPU's only refuses itself.
    """
    rows: list[LatencyRow | ProviderSkipped]
    try:
        if reason is not None:
            raise ProviderUnavailableError(reason)
        times, facts = _measured_provider(provider, options, bundle, source, reference)
        rows = list(rows_of(provider, times))
        record = replace(
            record,
            header=replace(
                record.header,
                machine=replace(
                    record.header.machine, gpu=record.header.machine.gpu or gpu_of(provider)
                ),
            ),
            facts=replace(record.facts, providers={**record.facts.providers, provider: facts}),
        )
    except (ProviderUnavailableError, PlanMismatchError) as error:
        rows = [ProviderSkipped(provider=provider, reason=str(error))]
    except FaceDiffuserError as error:
        if provider in HOST_PROVIDERS:
            raise
        wrong = isinstance(error, ReferenceMismatchError)
        status = Status.REFUSED if wrong else Status.FAILED
        rows = [ProviderSkipped(provider=provider, status=status, reason=str(error))]
    return replace(record, rows=(*record.rows, *rows))


def _workload(options: LatencyOptions) -> Workload:
    return Workload(steps=options.steps, size_px=options.size_px)


def _measured_provider(
    provider: str,
    options: LatencyOptions,
    bundle: Bundle,
    source: ModelSource,
    reference: Reference,
) -> tuple[PictureTimes, ProviderLatency]:
    """Check, then time pictures in this process and starts in others."""
    with opened_backend(bundle.path, provider, options.threads, source) as backend:
        agreement = reference.check(backend.face_diffuser)
        times = timed_pictures(backend, _workload(options), options.pictures)
        held = gpu_nbytes(os.getpid())
    latency = ProviderLatency(
        agreement=agreement,
        host_share=host_share(times),
        gpu_nbytes=held,
        start=None if provider == TORCH else start_facts(bundle, provider, options),
    )
    return times, latency


def rows_of(provider: str, times: PictureTimes) -> list[LatencyRow]:
    """One row per thing timed."""
    rows = []
    for (kind, name), samples in times.samples.items():
        found = summary(samples)
        rows.append(
            LatencyRow(
                provider=provider,
                kind=kind,
                name=name,
                per_picture=found.count / times.pictures,
                count=found.count,
                p50_ms=round(found.p50, 4),
                p90_ms=round(found.p90, 4),
                p99_ms=round(found.p99, 4),
                min_ms=round(found.minimum, 4),
                max_ms=round(found.maximum, 4),
                spread=round(found.spread, 4),
            )
        )
    return rows


def host_share(times: PictureTimes) -> dict[str, float]:
    """By stage, the share of a step that no engine accounts for, median."""
    return {stage: summary(shares).p50 for stage, shares in times.host_shares.items()}


def start_facts(bundle: Bundle, provider: str, options: LatencyOptions) -> StartFacts:
    """Start-up in seconds, and memory beside the weights that it holds."""
    work = Drawing(
        bundle=bundle.path,
        provider=provider,
        threads=options.threads,
        workload=_workload(options),
    )
    found = median_start_up(work, options.starts)
    over = found.peak_rss_nbytes / computed_weights_nbytes(bundle, provider, options.threads)
    return StartFacts(**vars(found), starts=options.starts, peak_rss_over_weights=over)


MEASURE = Measure(options=LatencyOptions, measure=measured_latency, text=latency_text)
