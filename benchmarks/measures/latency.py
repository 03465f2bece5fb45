"""One picture: how long it takes, where the time goes, what it costs to start and in memory.

    python -m benchmarks latency [--quick] [--bundle BUNDLE] [--threads N] [--steps N]

Start-up is measured in a process of its own, of which the operating system may already have the
files in its cache: "cold" is the first picture of a process, not the first after booting.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import TORCH, gpu_of, opened_backend, providers
from benchmarks.harness.bundle_facts import bundle_facts, computed_weights_nbytes
from benchmarks.harness.flags import add_bundle_flags
from benchmarks.harness.memory import gpu_nbytes
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.picture_times import PictureTimes, timed_pictures
from benchmarks.harness.record import Status, record
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.start_up import started
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from benchmarks.measures.latency_text import latency_text
from engines.bundle.folder import Bundle
from engines.errors import PlanMismatchError, ProviderUnavailableError

PICTURES, QUICK_PICTURES = 10, 3
STARTS, QUICK_STARTS = 3, 1

text = latency_text


def add_flags(flags: argparse.ArgumentParser) -> None:
    add_bundle_flags(flags)
    flags.add_argument("--size-px", type=int, help="height and width (default: the model's own)")
    flags.add_argument("--steps", type=int, help=f"(default: {STEPS}, quick {QUICK_STEPS})")
    flags.add_argument(
        "--pictures", type=int, help=f"(default: {PICTURES}, quick {QUICK_PICTURES})"
    )
    flags.add_argument(
        "--starts", type=int, help=f"processes to start (default: {STARTS}, quick {QUICK_STARTS})"
    )


def measured(
    *, quick: bool, bundle: Path, threads: int | None, steps: int | None, pictures: int | None,
    size_px: int | None, starts: int | None, **source: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row per component, stage and total of each provider; raises ReferenceMismatchError."""
    opened = Bundle.open(bundle)
    checkpoint = source_of(source_name(source, opened), opened)
    reference = Reference(checkpoint, opened.manifest)
    workload = Workload(steps=steps or (QUICK_STEPS if quick else STEPS), size_px=size_px)
    count = pictures or (QUICK_PICTURES if quick else PICTURES)
    rows: list[dict[str, Any]] = []
    facts = bundle_facts(opened, threads) | {"workload": vars(workload), "providers": {}}
    for provider, reason in providers().items():
        try:
            if reason is not None:
                raise ProviderUnavailableError(reason)
            with opened_backend(bundle, provider, threads, checkpoint) as backend:
                agreement = reference.check(backend.face_diffuser)
                times = timed_pictures(backend, workload, count)
                held = gpu_nbytes(os.getpid())
        except (ProviderUnavailableError, PlanMismatchError) as error:
            status = Status.SKIPPED.value
            rows.append({"provider": provider, "status": status, "reason": str(error)})
            continue
        rows += rows_of(provider, times)
        times_started = starts or (QUICK_STARTS if quick else STARTS)
        facts["providers"][provider] = {
            "agreement": agreement.to_json(),
            "host_share": host_share(times),
            "gpu_nbytes": held,
        }
        if provider != TORCH:
            start = start_facts(opened, provider, threads, workload, times_started)
            facts["providers"][provider]["start"] = start
    gpu = next((name for name in map(gpu_of, facts["providers"]) if name), None)
    return record("latency", rows, gpu=gpu, facts=facts, seeds=[SEED])


def rows_of(provider: str, times: PictureTimes) -> list[dict[str, Any]]:
    """One row per thing timed; a component's and a step's samples are single calls and steps."""
    rows = []
    for (kind, name), samples in times.samples.items():
        found = summary(samples)
        rows.append(
            {
                "provider": provider,
                "status": Status.MEASURED.value,
                "kind": kind,
                "name": name,
                "per_picture": found.count / times.pictures,
                "count": found.count,
                "p50_ms": round(found.p50, 4),
                "p90_ms": round(found.p90, 4),
                "p99_ms": round(found.p99, 4),
                "min_ms": round(found.minimum, 4),
                "max_ms": round(found.maximum, 4),
                "spread": round(found.spread, 4),
            }
        )
    return rows


def host_share(times: PictureTimes) -> dict[str, float]:
    """By stage, the share of a step that no engine accounts for, median."""
    return {stage: summary(shares).p50 for stage, shares in times.host_shares.items()}


def start_facts(
    bundle: Bundle, provider: str, threads: int | None, workload: Workload, starts: int
) -> dict[str, Any]:
    """Start-up in seconds, and memory beside the weights that it holds."""
    found = started(str(bundle.path), provider, threads, workload, starts)
    over = found["peak_rss_nbytes"] / computed_weights_nbytes(bundle, provider)
    return {"starts": starts, "peak_rss_over_weights": over} | found
