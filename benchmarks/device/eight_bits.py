"""U-Nets in 8 bits on a GPU: whether their numbers are finite, how far from half, how fast.

Beside the published plans stand two forms that a build would not publish: weights with a scale for
each channel, whose sums are unscaled in half precision by the builder's log, and convolutions in
FP8, which no page promises. Only a GPU tells whether they work.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.analysis.stats import summary
from benchmarks.device import calls, opened
from benchmarks.schema.gpu import EightBitRow, PointRow
from benchmarks.schema.record import Status
from engines import commands
from engines.bundle.files import file_record
from engines.bundle.folder import BUILD_FOLDER, Bundle
from engines.bundle.manifest import MANIFEST_NAME
from engines.bundle.plan_record import BuildProofs, BuiltPlan, LibraryName
from engines.bundle.quantization import Quantization, QuantizedGraph
from engines.cli.progress import JsonDisplay
from engines.contract import NOISE_PREDICTORS, Component
from engines.engine import Provider
from engines.errors import FaceDiffuserError, RequestError
from engines.gate import relative_l2
from engines.plans.building.build_log import BuildLog
from engines.plans.building.child import OnEvent
from engines.plans.building.job import PlanJob
from engines.plans.building.monitor import Cancellation, progress_monitor
from engines.plans.building.plan_from_onnx import plan_from_onnx
from engines.plans.bundle_plans import PlanRequest, build_plans
from engines.tensorrt.libraries import LIBRARIES
from engines.tensorrt.library import load, logger
from engines.tensorrt.target import plan_target

PUBLISHED = "as published"
FORMS = (PUBLISHED, "scales per channel", "FP8 convolutions")
_LIBRARIES = {
    Provider.TENSORRT: LibraryName.TENSORRT,
    Provider.TENSORRT_RTX: LibraryName.TENSORRT_RTX,
}


@dataclass(frozen=True, eq=False)
class Called:
    """What a U-Net answered, and the median of its calls in milliseconds."""

    prediction: npt.NDArray[np.float32]
    p50_ms: float


def scanned(
    bundle: Bundle, provider: Provider, *, side: int, repeats: int
) -> Iterator[EightBitRow | PointRow]:
    """A row for each U-Net in each form of each quantization that the bundle has.

    One image's call with the same inputs each. side: height and width of the latents. A form that
    cannot be built or opened leaves the others be. Raises RequestError for a bundle without 8-bit
    U-Nets and a provider that runs no plans.
    """
    if provider not in _LIBRARIES:
        raise RequestError(f"{provider} runs no plans, so there is none in 8 bits to measure")
    if not bundle.quantizations():
        raise RequestError(
            f"{bundle.path} has no U-Nets in 8 bits; add them with",
            fix=commands.rebuilt(bundle.path, "--int8", "--fp8"),
        )
    half = _called(bundle.quantized(None), provider, side, repeats)
    for quantization in bundle.quantizations():
        for form in FORMS:
            try:
                yield from _rows(bundle, provider, quantization, form, half, side, repeats)
            except (FaceDiffuserError, ImportError, OSError, RuntimeError) as error:
                yield PointRow(
                    provider=str(provider),
                    point=f"{quantization}, {form}",
                    status=Status.FAILED,
                    reason=f"{type(error).__name__}: {error}",
                )


def _rows(
    bundle: Bundle,
    provider: Provider,
    quantization: Quantization,
    form: str,
    half: Mapping[Component, Called],
    side: int,
    repeats: int,
) -> Iterator[EightBitRow]:
    with ExitStack() as stack:
        of_form = bundle
        if form != PUBLISHED:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=bundle.path.parent)))
            of_form = with_form(bundle, quantization, form, folder / "bundle")
            of_form = with_plans(of_form, _LIBRARIES[provider])
        called = _called(of_form.quantized(quantization), provider, side, repeats)
    for component, each in called.items():
        found, of_half = each.prediction, half[component]
        finite = bool(np.isfinite(found).all())
        yield EightBitRow(
            provider=str(provider),
            component=component.value,
            quantization=quantization.value,
            form=form,
            finite=finite,
            largest=round(float(np.abs(found).max()), 3) if finite else None,
            relative_l2=relative_l2(found, of_half.prediction) if finite else None,
            p50_ms=round(each.p50_ms, 4),
            half_p50_ms=round(of_half.p50_ms, 4),
            times_as_fast=round(of_half.p50_ms / each.p50_ms, 3),
        )


def _called(bundle: Bundle, provider: Provider, side: int, repeats: int) -> dict[Component, Called]:
    """Each U-Net's answer to the same noise, and its time."""
    called = {}
    with opened.engines_on(bundle, provider) as (gpu, stream, engines):
        for component in NOISE_PREDICTORS:
            with calls.bound_call(
                bundle, gpu, stream, engines, component, images=1, side=side
            ) as call:
                prediction = call.prediction()
                spent = summary(calls.times_ms(gpu, stream, call.run, repeats))
            called[component] = Called(prediction, spent.p50)
    return called


def with_form(bundle: Bundle, quantization: Quantization, form: str, folder: Path) -> Bundle:
    """A copy of a bundle in a new folder, whose U-Nets in 8 bits have another form."""
    import onnx

    from export.graph.cpu_graph import cpu_graph
    from export.graph.file import load_graph
    from export.quantization.forms import fp8_throughout, scales_per_channel
    from export.quantization.qdq import save_beside

    made_by = dict(zip(FORMS[1:], (scales_per_channel, fp8_throughout), strict=True))[form]

    shutil.copytree(bundle.path, folder, ignore=shutil.ignore_patterns(BUILD_FOLDER))
    records = dict(bundle.manifest.components)
    for component in NOISE_PREDICTORS:
        record = records[component]
        graph = record.quantized[quantization]
        half = bundle.path / record.onnx
        made = made_by(load_graph(bundle.path / graph.onnx), half)
        for name in graph.files:
            (folder / name).unlink()
        save_beside(made, bundle.path / graph.onnx, folder / graph.onnx)
        onnx.save(cpu_graph(load_graph(folder / graph.onnx)), folder / graph.cpu_onnx)
        names = [name for name in graph.files if (folder / name).is_file()]
        files = {name: file_record(folder / name) for name in names}
        other: QuantizedGraph = replace(graph, files=files)
        records[component] = replace(record, quantized={quantization: other})
    manifest = replace(bundle.manifest, components=records)
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    return Bundle.open(folder, plans=False)


def with_plans(bundle: Bundle, library: LibraryName) -> Bundle:
    """The same with plans of its U-Nets, of which nothing is proved; said to hold plans alone, so
    that opening them compares nothing with the CPU."""
    target = plan_target(library)
    request = PlanRequest(library=library, components=NOISE_PREDICTORS)
    silent = JsonDisplay(io.StringIO())
    built = build_plans(bundle.path, target, request, silent, lambda *_: None, unproven_plan)
    alone = replace(built.manifest, plans_only=True)
    (bundle.path / MANIFEST_NAME).write_text(alone.to_json())
    return Bundle.open(bundle.path)


def unproven_plan(job: PlanJob, on_event: OnEvent) -> BuiltPlan:
    """A plan as the library builds it. What it needs is asked of the engine, not of the record."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as file:
        trt, log = load(LIBRARIES[job.spec.library]), BuildLog(file=file)
        monitor = progress_monitor(trt, lambda *_: None, Cancellation())
        trt_logger = logger(trt, log.hear, log.hear_verbose)
        built = plan_from_onnx(trt, trt_logger, log, job, monitor)
    job.plan.write_bytes(built.plan)
    return BuiltPlan(
        file=file_record(job.plan),
        optimization_level=job.optimization_level,
        build_s=0.0,
        device_memory_nbytes=0,
        weights_nbytes=None,
        proofs=BuildProofs(network=built.network, layers=None, attention=None),
        parity=None,
    )
