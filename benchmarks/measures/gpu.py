"""Everything that a GPU can tell, in under nine minutes; each part keeps what it measured.

    python -m benchmarks gpu [--quick] [--bundle BUNDLE]

Each part is a command of its own, in a process of its own, that may also be typed alone. It has its
own share of the time, and what the parts before it left over; it is ended there, and what it had
measured by then is appended all the same. Parts that need PyTorch's CUDA build, and those for which
no time is left, are told as skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.harness.machine import gpu_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.schema.gpu import GpuFacts, GpuRecord, PartRow
from benchmarks.schema.record import Status
from benchmarks.schema.results import keep, recover
from engines.bundle.records import Count
from engines.commands import BENCHMARKS, PREFIX, typed
from engines.errors import ProviderUnavailableError
from engines.system.processes import Ended, run_module

# Less than this is not worth starting a part for.
LEAST_S = 10.0

Run = Callable[[Sequence[str], float], Ended]


@dataclass(frozen=True, kw_only=True)
class GpuOptions(Options):
    bundle: Path = field(default=Path("bundle"), metadata=flag("to measure (default: %(default)s)"))
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)")
    )
    budget_s: float = field(
        default=530.0, metadata=flag("seconds for all parts (default: %(default)s)")
    )


@dataclass(frozen=True)
class Part:
    """What to type after `python -m benchmarks`. share: of the whole time that it may take."""

    words: tuple[str, ...]
    share: float


def measured_gpu(options: GpuOptions) -> GpuRecord:
    """A row per part; raises ProviderUnavailableError without a GPU."""
    facts_of_gpu = gpu_facts()
    if facts_of_gpu is None:
        raise ProviderUnavailableError("there is no NVIDIA GPU here, so nothing was measured")
    header = header_of("gpu", options, gpu=facts_of_gpu["name"])
    facts = GpuFacts(budget_s=options.budget_s)
    record = GpuRecord(header=header, facts=facts, rows=())
    for rows in run_parts(parts(options), options.budget_s, partial(run_part, options)):
        record = replace(record, rows=rows)
        keep(record, options.results)
    return record


def parts(options: GpuOptions) -> dict[str, Part]:
    """Most wanted first: what a GPU alone tells, then PyTorch."""
    quick = ("--quick",) if options.quick else ()
    size = () if options.size_px is None else ("--size-px", str(options.size_px))
    bundle = ("--bundle", str(options.bundle))
    device = ("device", *bundle, *quick, *size, "--what")
    kernels = ("device", *bundle, *quick, "--what", "kernels")
    torch = ("peers", "--device", "cuda", "--without-bundle", "--model", "random", *quick)
    torch += ("--work", "trajectory", "--steps", "50", "--rounds", "3", "--peers")
    return {
        "kernels: correctness": Part(kernels, 0.05),
        "kernels: times beside eager and compiled PyTorch": Part(("kernels", *quick), 0.12),
        "one step of each stage, one picture": Part((*device, "steps"), 0.14),
        "8 bits: infinities, distance, time": Part((*device, "8-bit"), 0.12),
        "one call with 1, 2, 4 and 8 images": Part((*device, "calls"), 0.10),
        "fusion side by side and one after the other": Part((*device, "fusion"), 0.06),
        "memory": Part((*device, "memory"), 0.06),
        "PyTorch, eager": Part((*torch, "eager fp16"), 0.16),
        "PyTorch, compiled": Part((*torch, "torch.compile fp16"), 0.19),
    }


def run_parts(
    wanted: Mapping[str, Part],
    budget_s: float,
    run: Run,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[PartRow, ...]]:
    """Run each within its share and what is left over; the rows so far after each.

    A part that fails does not keep the others from running, nor takes their time.
    """
    end = clock() + budget_s
    rows: list[PartRow] = []
    promised_s = budget_s
    for name, part in wanted.items():
        start = clock()
        promised_s -= part.share * budget_s
        # All that is left but for what the later parts were promised.
        limit_s = end - start - promised_s
        status, reason = Status.SKIPPED, f"no time left of {budget_s:.0f} s"
        if limit_s >= LEAST_S:
            ended = run(part.words, limit_s)
            status = Status.MEASURED if ended.code == 0 else Status.FAILED
            reason = "" if ended.code == 0 else ended.last_words
        rows.append(
            PartRow(
                part=name,
                command=typed(BENCHMARKS, *part.words),
                status=status,
                s=clock() - start,
                limit_s=limit_s,
                reason=reason,
            )
        )
        yield tuple(rows)


def run_part(options: GpuOptions, words: Sequence[str], limit_s: float) -> Ended:
    """In a process of its own, ended at the limit; its records go where all records go."""
    there = [] if options.results is None else ["--results", options.results]
    # With --json, stdout is for one object.
    ended = run_module(
        PREFIX + BENCHMARKS, *words, *there, limit_s=limit_s, keep_output=options.json
    )
    if recover(words[0], options.results) and not ended.last_words:
        return Ended(code=ended.code, printed=ended.printed, last_words="ended at its limit")
    return ended


MEASURE = Measure(options=GpuOptions, measure=measured_gpu, text=table_of)
