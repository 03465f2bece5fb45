"""Pictures drawn on a GPU: one step of each stage, the whole, both ways of fusion, and memory."""

from __future__ import annotations

import time

from benchmarks.analysis.stats import summary
from benchmarks.device.opened import Drawing
from benchmarks.harness.workload import Workload
from benchmarks.schema.gpu import FusionRow, MemoryRow, PictureRow, StageRow
from engines.contract import LATENT_PX
from runtime import Result, Stage
from runtime.gpu.programs import Concurrency
from runtime.method.solvers import Scheduler
from runtime.trajectory import RequestKind


def steps_and_picture(
    drawing: Drawing, workload: Workload, pictures: int
) -> list[StageRow | PictureRow]:
    """One step of each stage, as the mean of its steps in a picture, and one whole picture.

    Medians over so many pictures, after one that does not count. Stages are timed on the GPU's own
    clock, pictures on the host's.
    """
    request = workload.request(scheduler=Scheduler.DDIM)
    provider = drawing.face_diffuser.provider
    drawing.face_diffuser.generate(request)
    whole_ms, results = [], []
    for _ in range(pictures):
        start = time.perf_counter()
        results.append(drawing.face_diffuser.generate(request))
        whole_ms.append((time.perf_counter() - start) * 1e3)
    rows: list[StageRow | PictureRow] = []
    boundaries = request.boundaries([step / workload.steps for step in range(workload.steps)])
    stages = [boundaries.stage(step) for step in range(workload.steps)]
    for stage in Stage:
        if count := stages.count(stage):
            found = summary([each.timings_ms[stage.value] / count for each in results])
            rows.append(
                StageRow(
                    provider=provider,
                    stage=stage.value,
                    steps=count,
                    pictures=pictures,
                    step_p50_ms=round(found.p50, 4),
                    step_p90_ms=round(found.p90, 4),
                )
            )
    found = summary(whole_ms)
    rows.append(
        PictureRow(
            provider=provider,
            steps=workload.steps,
            pictures=pictures,
            picture_p50_ms=round(found.p50, 3),
            picture_p90_ms=round(found.p90, 3),
            parts_ms=_medians(results),
        )
    )
    return rows


def _medians(results: list[Result]) -> dict[str, float]:
    names = results[0].timings_ms
    return {n: round(summary([r.timings_ms[n] for r in results]).p50, 4) for n in names}


def fusion_both_ways(drawing: Drawing, images: int, side_px: int) -> FusionRow:
    """A step of the fusion stage with its two models one after the other, and side by side."""
    side = side_px // LATENT_PX
    programs = drawing.backend.programs(RequestKind(images=images, height=side, width=side))
    spent = programs.measured_ms
    serial, beside = (spent.get(each) for each in (Concurrency.SERIAL, Concurrency.CONCURRENT))
    return FusionRow(
        provider=drawing.face_diffuser.provider,
        images=images,
        size_px=side_px,
        serial_ms=serial,
        concurrent_ms=beside,
        taken=programs.concurrency.value,
        reason="" if spent else "its steps cannot be captured, so they stay one after the other",
    )


def memory_row(drawing: Drawing, workload: Workload) -> MemoryRow:
    """What the GPU has less of with the bundle open, and after a picture."""
    gpu = drawing.backend.gpu
    drawing.face_diffuser.generate(workload.request())
    free, total = gpu.free_nbytes()
    return MemoryRow(
        provider=drawing.face_diffuser.provider,
        images=workload.images,
        total_nbytes=total,
        free_before_nbytes=drawing.free_nbytes,
        taken_nbytes=drawing.free_nbytes - free,
    )
