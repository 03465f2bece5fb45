"""This machine's peaks, then each component's FLOP/s and bytes/s against them.

    python -m benchmarks roofline [--quick] [--bundle BUNDLE] [--threads N]

The roof of a component is the least time that the measured peaks allow for its FLOPs and for its
weights, inputs and outputs read or written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.analysis.costs import Cost, Sizes, cost_of, meta_inputs
from benchmarks.analysis.peaks import peaks_of, roof_ms
from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import CPU, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.machine import gpu_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.options import BundleOptions
from benchmarks.harness.record import header_of, table_of
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.timing import repeated_ms
from benchmarks.harness.workload import SEED
from benchmarks.schema.facts import Peaks
from benchmarks.schema.roofline import RooflineFacts, RooflineRecord, RooflineRow
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, LATENT_PX, Component
from engines.engine import Array, Engine
from engines.onnxruntime.cpu import open_on_cpu
from engines.threads import processors

REPEATS, QUICK_REPEATS = 10, 3
# CPUs compute in float32, whatever the bundle's precision.
ELEMENT_NBYTES = 4


def measured_roofline(options: BundleOptions) -> RooflineRecord:
    """A row per component; raises ReferenceMismatchError."""
    bundle = Bundle.open(options.bundle)
    source = source_of(source_name(options, bundle), bundle)
    with opened_backend(bundle.path, CPU, options.threads) as backend:
        agreement = Reference(source, bundle.manifest).check(backend.face_diffuser)
    cores = options.threads or processors()
    peaks = peaks_of("cpu", cores, quick=options.quick)
    dimensions = bundle.manifest.dimensions
    calls = [
        (
            component, sizes, cost_of(component, source, dimensions, sizes),
            _median_ms(component, sizes, bundle, options),
        )
        for component, sizes in picture_calls(dimensions.native_px)
    ]  # fmt: skip
    peaks = at_least_reached(peaks, [(cost, ms) for _, _, cost, ms in calls])
    rows = [roofline_row(component, sizes, cost, ms, peaks) for component, sizes, cost, ms in calls]
    facts = RooflineFacts(
        **vars(bundle_facts(bundle, options.threads)),
        agreement=agreement,
        peaks=peaks,
        gpu_peaks=None if gpu_facts() is None else peaks_of("cuda", cores, quick=options.quick),
    )
    header = header_of("roofline", options, gpu=None, seeds=[SEED])
    return RooflineRecord(header=header, facts=facts, rows=tuple(rows))


def at_least_reached(peaks: Peaks, calls: Sequence[tuple[Cost, float]]) -> Peaks:
    """Peaks that no call is above: what was reached is possible, whatever the peak's own run said.

    calls: each one's cost and milliseconds. A busy machine measures a peak too low.
    """
    flop_per_s = max((cost.flops / ms * 1e3 for cost, ms in calls), default=0.0)
    least = ((cost.weights + cost.io) * ELEMENT_NBYTES / ms * 1e3 for cost, ms in calls)
    return replace(
        peaks,
        flop_per_s={**peaks.flop_per_s, "fp32": max(peaks.flop_per_s["fp32"], flop_per_s)},
        bytes_per_s=max(peaks.bytes_per_s, max(least, default=0.0)),
    )


def picture_calls(native_px: int) -> list[tuple[Component, Sizes]]:
    """The calls that one picture of the model's own size makes."""
    side = native_px // LATENT_PX
    area = {"images": 1, "h": side, "w": side, "8h": native_px, "8w": native_px}
    return [
        (Component.TEXT_ENCODER, {"n": 3}),
        (Component.IMAGE_ENCODER, {"n": 1}),
        (Component.FUSION_MLP, {"n": 1}),
        (Component.TDM_UNET, area | {"rows": 2}),
        (Component.SDM_UNET, area | {"rows": 3}),
        (Component.VAE_DECODER, area),
    ]


def _median_ms(component: Component, sizes: Sizes, bundle: Bundle, options: BundleOptions) -> float:
    """One call's time on the processor."""
    engine = open_on_cpu(bundle, component, options.threads)
    try:
        engine.bind(buffers_of(engine, component, bundle, sizes))
        repeats = QUICK_REPEATS if options.quick else REPEATS
        return summary(repeated_ms(engine.enqueue, repeats=repeats)).p50
    finally:
        engine.close()


def roofline_row(
    component: Component, sizes: Sizes, cost: Cost, ms: float, peaks: Peaks
) -> RooflineRow:
    """Achieved rates and their shares of the peaks."""
    least = (cost.weights + cost.io) * ELEMENT_NBYTES
    most = cost.operations * ELEMENT_NBYTES
    roof = roof_ms(cost.flops, least, peaks, "fp32")
    return RooflineRow(
        component=component,
        rows=next(sizes[symbol] for symbol in ("rows", "n", "images") if symbol in sizes),
        p50_ms=ms,
        gflop=cost.flops / 1e9,
        gflop_per_s=cost.flops / ms / 1e6,
        share_of_matrix_peak=cost.flops / ms * 1e3 / peaks.flop_per_s["fp32"],
        least_mb=least / 1e6,
        unfused_mb=most / 1e6,
        least_gb_per_s=least / ms / 1e6,
        share_of_memory_peak=least / ms * 1e3 / peaks.bytes_per_s,
        flop_per_byte=cost.flops / least,
        roof_ms=roof,
        share_of_roof=roof / ms,
    )


def buffers_of(
    engine: Engine, component: Component, bundle: Bundle, sizes: Sizes
) -> dict[str, Array]:
    """Inputs of realistic scale, zeros for outputs, in the engine's own types."""
    dimensions = bundle.manifest.dimensions
    generator = np.random.default_rng(SEED)
    buffers: dict[str, Array] = {}
    for name, tensor in meta_inputs(component, dimensions, sizes).items():
        dtype, shape = engine.dtypes[name], tuple(tensor.shape)
        if dtype.kind == "f":
            buffers[name] = generator.standard_normal(shape).astype(dtype)
        else:
            buffers[name] = generator.integers(0, 2, shape).astype(dtype)
    output = CONTRACTS[component].outputs[0]
    fixed = vars(dimensions)
    shape = tuple(
        size if isinstance(size, int) else sizes.get(size, fixed.get(size, 1))
        for size in output.shape
    )
    buffers[output.name] = np.zeros(shape, engine.dtypes[output.name])
    return buffers


MEASURE = Measure(options=BundleOptions, measure=measured_roofline, text=table_of)
