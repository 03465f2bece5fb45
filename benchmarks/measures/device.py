"""A GPU measured without PyTorch: with the CUDA driver, numpy and the bundle alone.

    python -m benchmarks device --what PART [--bundle BUNDLE]

kernels: the bundle's cubins against the formulas. steps: one step of each stage and one picture.
calls: one call of each U-Net with 1, 2, 4 and 8 images. fusion: the two models one after the other
and side by side. memory: what the GPU has less of. 8-bit: infinities, distance and time of U-Nets
in 8 bits. Each on every GPU provider that runs here, or on those named. What is measured is kept
after every point; a point that fails leaves the others be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from benchmarks.device import calls, drawn
from benchmarks.device.eight_bits import scanned
from benchmarks.device.kernels import checked_kernels
from benchmarks.device.opened import drawing_on, engines_on
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.machine import gpu_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import BundleOptions, flag
from benchmarks.harness.record import ReferenceMismatchError, header_of, table_of
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from benchmarks.schema.gpu import CheckRow, DeviceFacts, DeviceRecord, Part, PointRow, Row
from benchmarks.schema.record import Status
from benchmarks.schema.results import keep
from engines.bundle.folder import Bundle
from engines.bundle.records import Count
from engines.contract import LATENT_PX, NOISE_PREDICTORS
from engines.engine import Provider
from engines.errors import (
    FaceDiffuserError,
    PlanMismatchError,
    ProviderUnavailableError,
    RequestError,
)
from engines.providers import GPU_PROVIDERS

# What cannot be measured here, rather than what went wrong.
_CANNOT = (ProviderUnavailableError, PlanMismatchError, RequestError)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(BundleOptions):
    what: Part = field(default="steps", metadata=flag("what to measure (default: %(default)s)"))
    provider: tuple[str, ...] = field(
        default=tuple(each.value for each in GPU_PROVIDERS),
        metadata=flag("on these (default: all of a GPU)", choices=[*GPU_PROVIDERS]),
    )
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)")
    )
    steps: Count = field(default=STEPS, metadata=flag("of each picture", quick=QUICK_STEPS))
    pictures: Count = field(default=10, metadata=flag("after one to warm up", quick=3))
    repeats: Count = field(default=50, metadata=flag("of each call", quick=5))


def measured_device(options: DeviceOptions) -> DeviceRecord:
    """Rows of one part, each kept as it comes; raises ProviderUnavailableError without a GPU."""
    facts_of_gpu = gpu_facts()
    if facts_of_gpu is None:
        raise ProviderUnavailableError("there is no NVIDIA GPU here, so nothing was measured")
    bundle = Bundle.open(options.bundle)
    record = DeviceRecord(
        header=header_of("device", options, gpu=facts_of_gpu["name"], seeds=[SEED]),
        facts=DeviceFacts(**vars(bundle_facts(bundle, options.threads)), what=options.what),
        rows=(),
    )
    for row in _rows(bundle, options):
        record = replace(record, rows=(*record.rows, row))
        keep(record, options.results)
    wrong = [row for row in record.rows if isinstance(row, CheckRow) and row.reason]
    if wrong:
        told = "; ".join(f"{row.kernel}: {row.reason}" for row in wrong)
        raise ReferenceMismatchError(
            f"{len(wrong)} of {len(record.rows)} kernels are wrong: {told}"
        )
    unmeasured = [row for row in record.rows if isinstance(row, PointRow)]
    if len(unmeasured) == len(record.rows):
        told = "; ".join(f"{row.provider}: {row.reason}" for row in unmeasured)
        raise ProviderUnavailableError(f"nothing could be measured: {told}")
    return record


def _rows(bundle: Bundle, options: DeviceOptions) -> Iterator[Row]:
    if options.what == "kernels":
        yield from checked_kernels(bundle, quick=options.quick)
        return
    for name in options.provider:
        try:
            yield from _on_provider(bundle, Provider(name), options)
        except (FaceDiffuserError, OSError, RuntimeError) as error:
            yield _not_measured(name, "opening", error)


def _on_provider(bundle: Bundle, provider: Provider, options: DeviceOptions) -> Iterator[Row]:
    size_px = options.size_px or bundle.manifest.dimensions.native_px
    if options.what == "8-bit":
        yield from scanned(bundle, provider, side=size_px // LATENT_PX, repeats=options.repeats)
        return
    if options.what == "calls":
        with engines_on(bundle, provider) as (gpu, stream, opened):
            call = partial(
                calls.timed_call, bundle, gpu, stream, opened,
                side=size_px // LATENT_PX, repeats=options.repeats,
            )  # fmt: skip
            for component in NOISE_PREDICTORS:
                for images in calls.IMAGES:
                    point = f"{component}, {images} images"
                    try:
                        yield call(component, images=images)
                    except FaceDiffuserError as error:
                        yield _not_measured(provider, point, error)
        return
    workload = Workload(steps=options.steps, size_px=size_px)
    with drawing_on(bundle, provider) as drawing:
        if options.what == "steps":
            yield from drawn.steps_and_picture(drawing, workload, options.pictures)
        elif options.what == "fusion":
            yield drawn.fusion_both_ways(drawing, workload.images, size_px)
        else:
            yield drawn.memory_row(drawing, workload)


def _not_measured(provider: str, point: str, error: Exception) -> PointRow:
    status = Status.SKIPPED if isinstance(error, _CANNOT) else Status.FAILED
    reason = f"{type(error).__name__}: {error}"
    return PointRow(provider=str(provider), point=point, status=status, reason=reason)


MEASURE = Measure(options=DeviceOptions, measure=measured_device, text=table_of)
