"""Cost against steps, size, people and images, fitted, beside the FLOPs that each should take.

python -m benchmarks scaling [--quick] [--bundle BUNDLE] [--threads N]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from benchmarks.analysis.costs import Cost, cost_of
from benchmarks.analysis.fits import exponent, line
from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import gpu_of, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.options import ProviderOptions, flag
from benchmarks.harness.record import header_of, table_of
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.timing import repeated_ms
from benchmarks.harness.workload import SEED, Workload
from benchmarks.schema.scaling import (
    Axis,
    Fits,
    LineFit,
    PowerFit,
    ScalingFacts,
    ScalingRecord,
    ScalingRow,
)
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.bundle.records import Count
from engines.contract import LATENT_PX, SIZE_MULTIPLE_PX, Component
from export.source import ModelSource
from runtime import FaceDiffuser, Stage
from runtime.preparation import planned_steps

CostOf = Callable[..., Cost]


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(ProviderOptions):
    pictures: Count = field(default=5, metadata=flag("at each point", quick=2))


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The points of each axis. base: the middle of the others. sizes: of the model's own size."""

    base: Workload
    steps: tuple[int, ...]
    sizes: tuple[float, ...]
    people: tuple[int, ...]
    images: tuple[int, ...]


# Enough steps for every stage to have some; 512, 640 and 768 px for Stable Diffusion 1.5.
FULL = Axes(
    base=Workload(steps=10, people=2), steps=(10, 20, 30, 50), sizes=(1.0, 1.25, 1.5),
    people=(1, 2, 3), images=(1, 2, 4),
)  # fmt: skip
QUICK = Axes(
    base=Workload(steps=3, people=2), steps=(3, 6), sizes=(1.0, 1.5), people=(1, 2), images=(1, 2)
)


def measured_scaling(options: ScalingOptions) -> ScalingRecord:
    """A row per point of each axis; raises ReferenceMismatchError."""
    bundle = Bundle.open(options.bundle)
    source = source_of(source_name(options, bundle), bundle)
    reference = Reference(source, bundle.manifest)
    dimensions = bundle.manifest.dimensions
    axes = QUICK if options.quick else FULL
    costs = counted(source, dimensions)
    spent: dict[Workload, float] = {}
    rows = []
    with opened_backend(bundle.path, options.provider, options.threads) as backend:
        agreement = reference.check(backend.face_diffuser)
        for axis, value, workload in scaling_points(axes, dimensions.native_px):
            if workload not in spent:
                spent[workload] = median_ms(backend.face_diffuser, workload, options.pictures)
            ms, flop = spent[workload], picture_flop(workload, costs)
            rows.append(
                ScalingRow(
                    axis=axis, value=value, p50_ms=ms, flop=flop, gflop_per_s=flop / ms / 1e6
                )
            )
    facts = ScalingFacts(
        **vars(bundle_facts(bundle, options.threads)),
        provider=options.provider,
        base=axes.base,
        pictures=options.pictures,
        agreement=agreement,
        fits=fits_of(rows),
    )
    header = header_of("scaling", options, gpu=gpu_of(options.provider), seeds=[SEED])
    return ScalingRecord(header=header, facts=facts, rows=tuple(rows))


def scaling_points(axes: Axes, native_px: int) -> list[tuple[Axis, int, Workload]]:
    """(axis, value, workload): one axis moves, the others stay at the base's."""
    base = replace(axes.base, size_px=native_px)
    sizes = sorted({_px(share * native_px) for share in axes.sizes})
    return [
        *(("steps", n, replace(base, steps=n)) for n in axes.steps),
        *(("size_px", n, replace(base, size_px=n)) for n in sizes),
        *(("people", n, replace(base, people=n)) for n in axes.people),
        *(("images", n, replace(base, images=n)) for n in axes.images),
    ]


def median_ms(face_diffuser: FaceDiffuser, workload: Workload, pictures: int) -> float:
    request = workload.request()
    times = repeated_ms(lambda: face_diffuser.generate(request), repeats=pictures)
    return summary(times).p50


def counted(source: ModelSource, dimensions: Dimensions) -> CostOf:
    """cost_of for this model, each case counted once."""

    @cache
    def cost(component: Component, **sizes: int) -> Cost:
        return cost_of(component, source, dimensions, sizes)

    return cost


def picture_flop(workload: Workload, cost: CostOf) -> int:
    """FLOPs of all engine calls of a request of this size (guidance rule of the paper)."""
    side = (workload.size_px or 0) // LATENT_PX
    area = {"images": workload.images, "h": side, "w": side}
    tdm = cost(Component.TDM_UNET, rows=2 * workload.images, **area).flops
    sdm = cost(Component.SDM_UNET, rows=3 * workload.images, **area).flops
    by_stage = {Stage.SCENE: tdm, Stage.FUSION: tdm + sdm, Stage.SUBJECT: sdm}
    boundaries = planned_steps(workload.request(), NoiseSchedule()).boundaries
    steps = sum(by_stage[boundaries.stage(step)] for step in range(workload.steps))
    decode = workload.images * cost(Component.VAE_DECODER, images=1, h=side, w=side).flops
    photos = workload.people * cost(Component.IMAGE_ENCODER, n=1).flops
    texts = cost(Component.TEXT_ENCODER, n=3).flops + cost(Component.FUSION_MLP, n=1).flops
    return steps + decode + photos + texts


def fits_of(rows: Sequence[ScalingRow]) -> Fits:
    """Per axis: milliseconds and FLOPs, each as a line, or by size as a power."""
    axes = dict.fromkeys(row.axis for row in rows)
    return {axis: _fit(axis, [row for row in rows if row.axis == axis]) for axis in axes}


def _fit(axis: Axis, rows: Sequence[ScalingRow]) -> LineFit | PowerFit:
    x = [float(row.value) for row in rows]
    ms = [row.p50_ms for row in rows]
    flop = [float(row.flop) for row in rows]
    if axis == "size_px":
        return PowerFit(power_of_ms=exponent(x, ms), power_of_flop=exponent(x, flop))
    time, work = line(x, ms), line(x, flop)
    return LineFit(
        intercept_ms=time.intercept,
        slope_ms=time.slope,
        r2=time.r2,
        intercept_flop=work.intercept,
        slope_flop=work.slope,
    )


def _px(size: float) -> int:
    """The nearest size that a picture can have."""
    return max(1, round(size / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX


MEASURE = Measure(options=ScalingOptions, measure=measured_scaling, text=table_of)
