"""The kernels against eager and compiled PyTorch, on a GPU.

    python -m benchmarks kernels [--quick]
    compute-sanitizer --tool memcheck python -m benchmarks kernels --quick
    compute-sanitizer --tool racecheck python -m benchmarks kernels --quick

First the cubins' results are held against numpy's and, where a C compiler is at hand, bit for bit
against Triton compiling the same kernels just in time. Then each implementation runs 50 steps in
one CUDA graph, and the median and the 90th percentile of the replays are divided by 50.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness.measure import Measure
from benchmarks.harness.options import Options
from benchmarks.harness.record import header_of, table_of
from benchmarks.schema.kernels import KernelRow, KernelsFacts, KernelsRecord
from benchmarks.schema.results import keep
from benchmarks.snf import eager
from benchmarks.snf.check import check
from benchmarks.snf.trial import SCALE, STEPS, KernelTrial
from engines.commands import BENCHMARKS, typed
from engines.cuda.driver import architecture_of, driver
from engines.cuda.launcher import KernelLibrary, Launch, opened_library
from engines.errors import ProviderUnavailableError
from export.cubins.build import build_cubins
from runtime.gpu.kernels import LatentsSize

SIZES = (
    LatentsSize(images=1, height=64, width=64),
    LatentsSize(images=4, height=64, width=64),
    LatentsSize(images=16, height=64, width=64),
    LatentsSize(images=1, height=64, width=96),
    LatentsSize(images=1, height=96, width=96),
    LatentsSize(images=4, height=128, width=128),
)
REPLAYS, QUICK_REPLAYS = 200, 5
# Any two noise levels: the arithmetic is the same for all.
ALPHA, ALPHA_PREVIOUS = 0.5, 0.55

Step = Callable[[], object]


@dataclass(frozen=True)
class Contest:
    """One kernel's work, done by its launches and by PyTorch."""

    name: str
    launches: tuple[Launch, ...]
    eager: Step
    compiled: Step


def measured_kernels(options: Options) -> KernelsRecord:
    """Check, then time; raises ProviderUnavailableError without a GPU."""
    if not torch.cuda.is_available():
        raise ProviderUnavailableError(
            "this benchmark needs an NVIDIA GPU and a CUDA build of torch; without torch there is",
            fix=typed(BENCHMARKS, "device", "--what", "kernels"),
        )
    sizes, replays = (SIZES[:1], QUICK_REPLAYS) if options.quick else (SIZES, REPLAYS)
    torch.zeros(1, device="cuda")  # makes the context that the kernels are loaded into
    architecture = architecture_of(torch.cuda.current_device())
    gpu = torch.cuda.get_device_name()
    header = header_of("kernels", options, gpu=gpu)
    record = KernelsRecord(header=header, facts=KernelsFacts(just_in_time="not reached"), rows=())
    with tempfile.TemporaryDirectory() as folder:
        build_cubins(Path(folder), precision="fp16", architectures=(architecture,))
        with opened_library(Path(folder), architecture, driver()) as library:
            for size in sizes:
                trial = KernelTrial(library, size)
                facts = KernelsFacts(just_in_time=check(trial))
                for contest in contests(trial, library):
                    row = kernel_row(size, contest, trial, replays)
                    record = replace(record, facts=facts, rows=(*record.rows, row))
                    keep(record, options.results)
            torch.cuda.synchronize()
    return record


def contests(trial: KernelTrial, library: KernelLibrary) -> list[Contest]:
    """Every kernel with PyTorch's way of doing the same, on the same tensors."""
    latents = trial.latents.half()
    fusion = partial(
        _run, eager.fusion_step, trial.tdm, trial.sdm, latents, SCALE, ALPHA, ALPHA_PREVIOUS
    )
    compiled_fusion = partial(
        _run,
        torch.compile(eager.fusion_step),
        *(trial.tdm, trial.sdm, latents, SCALE, ALPHA, ALPHA_PREVIOUS),
    )
    guided = (trial.tdm, latents, SCALE, ALPHA, ALPHA_PREVIOUS)
    return [
        Contest("fusion", trial.fusion(), fusion, compiled_fusion),
        Contest(
            "guided step",
            trial.guided(),
            partial(_run, eager.guided_step, *guided),
            partial(_run, torch.compile(eager.guided_step), *guided),
        ),
        Contest(
            "pixels",
            trial.pixels(),
            partial(_run, eager.pixels, trial.decoded),
            partial(_run, torch.compile(eager.pixels), trial.decoded),
        ),
    ]


def kernel_row(size: LatentsSize, contest: Contest, trial: KernelTrial, replays: int) -> KernelRow:
    """Microseconds a step of each implementation."""
    kernel, kernel_90 = step_us(partial(trial.enqueue, contest.launches), trial, replays)
    plain, plain_90 = step_us(contest.eager, trial, replays)
    compiled, compiled_90 = step_us(contest.compiled, trial, replays)
    return KernelRow(
        kernel=contest.name,
        images=size.images,
        height_px=8 * size.height,
        width_px=8 * size.width,
        kernel_us=kernel,
        kernel_p90_us=kernel_90,
        eager_us=plain,
        eager_p90_us=plain_90,
        compiled_us=compiled,
        compiled_p90_us=compiled_90,
        times_eager=round(plain / kernel, 2),
        times_compiled=round(compiled / kernel, 2),
    )


def step_us(step: Step, trial: KernelTrial, replays: int) -> tuple[float, float]:
    """Median and 90th percentile of a step's time in a graph of STEPS steps."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, fills allocators
            trial.clock.zero_()
            step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        trial.clock.zero_()
        for _ in range(STEPS):
            step()
    times = []
    for _ in range(replays + 3):
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / STEPS)
    times = times[3:]
    return round(statistics.median(times), 3), round(statistics.quantiles(times, n=10)[-1], 3)


def _run(function: Callable[..., object], *arguments: object) -> object:
    with torch.no_grad():
        return function(*arguments)


MEASURE = Measure(options=Options, measure=measured_kernels, text=table_of)
