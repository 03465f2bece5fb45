"""Everything that a GPU can tell, in under nine minutes; appends each part's record.

    python -m benchmarks gpu [--quick] [--bundle BUNDLE]

The peaks, the kernels, PyTorch eager and compiled at Stable Diffusion 1.5's size with random
weights (no download, no export), and the runtime's latency where a bundle is at hand. Each part is
a command of its own that may also be typed alone; what the time does not suffice for is recorded as
skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.analysis.peaks import peaks_of
from benchmarks.harness.backends import TORCH
from benchmarks.harness.machine import gpu_facts, usable_cpus
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.schema.gpu import GpuFacts, GpuRecord, PartRow
from benchmarks.schema.record import Status
from engines.bundle.manifest import MANIFEST_NAME
from engines.commands import BENCHMARKS, PREFIX, typed
from engines.errors import ProviderUnavailableError
from engines.system.processes import Ended, run_module

# Less than this is not worth starting a part for.
LEAST_S = 20.0

Run = Callable[[Sequence[str], float], Ended]


@dataclass(frozen=True, kw_only=True)
class GpuOptions(Options):
    bundle: Path = field(
        default=Path("bundle"), metadata=flag("to measure too, if it is there: %(default)s")
    )
    provider: str = field(
        default=TORCH, metadata=flag("of the bundle against PyTorch (default: %(default)s)")
    )
    budget_s: float = field(
        default=9 * 60.0, metadata=flag("seconds for all parts (default: %(default)s)")
    )


def measured_gpu(options: GpuOptions) -> GpuRecord:
    """A row per part; raises ProviderUnavailableError without a GPU."""
    started = time.monotonic()
    facts_of_gpu = gpu_facts()
    if facts_of_gpu is None:
        raise ProviderUnavailableError("there is no NVIDIA GPU here, so nothing was measured")
    peaks = peaks_of("cuda", usable_cpus(), quick=options.quick)
    left_s = options.budget_s - (time.monotonic() - started)
    rows = run_parts(parts(options), left_s, partial(run_part, options))
    return GpuRecord(
        header=header_of("gpu", options, gpu=facts_of_gpu["name"]),
        facts=GpuFacts(peaks=peaks, budget_s=options.budget_s),
        rows=tuple(rows),
    )


def parts(options: GpuOptions) -> dict[str, list[str]]:
    """What to type after `python -m benchmarks`, most wanted first."""
    flags = ["--quick"] if options.quick else []
    peers = ["peers", "--device", "cuda", "--without-bundle", "--model", "random", *flags]
    names = ["eager fp16", "torch.compile fp16"]
    found = {"kernels": ["kernels", *flags]}
    if (options.bundle / MANIFEST_NAME).is_file():
        bundle = str(options.bundle)
        found["latency"] = ["latency", "--bundle", bundle, *flags]
        found["the bundle against PyTorch, 50 steps"] = [
            "peers", "--device", "cuda", "--bundle", bundle, "--provider", options.provider,
            "--work", "trajectory", "--steps", "50", "--rounds", "5", "--peers", *names,
        ]  # fmt: skip
    found["PyTorch, one fusion step"] = [*peers, "--work", "step", "--peers", *names]
    found["PyTorch, 50 steps"] = [
        *peers, "--work", "trajectory", "--steps", "50", "--rounds", "3", "--peers", *names,
    ]  # fmt: skip
    return found


def run_parts(wanted: Mapping[str, Sequence[str]], budget_s: float, run: Run) -> list[PartRow]:
    """Run each with what time is left; a part that fails does not keep the others from running."""
    end = time.monotonic() + budget_s
    rows = []
    for name, words in wanted.items():
        start = time.monotonic()
        status, reason = Status.SKIPPED, "no time left"
        if end - start >= LEAST_S:
            ended = run(words, end - start)
            status = Status.MEASURED if ended.code == 0 else Status.FAILED
            reason = "" if ended.code == 0 else ended.last_words
        spent_s = time.monotonic() - start
        command = typed(BENCHMARKS, *words)
        rows.append(PartRow(part=name, command=command, status=status, s=spent_s, reason=reason))
    return rows


def run_part(options: GpuOptions, words: Sequence[str], limit_s: float) -> Ended:
    """In a process of its own, ended at the limit; its records go where all records go."""
    there = [] if options.results is None else ["--results", options.results]
    # With --json, stdout is for one object.
    return run_module(
        PREFIX + BENCHMARKS, *words, *there, limit_s=limit_s, keep_output=options.json
    )


MEASURE = Measure(options=GpuOptions, measure=measured_gpu, text=table_of)
