"""This machine's peaks, then each component's FLOP/s and bytes/s against them.

    python -m benchmarks roofline [--quick] [--bundle BUNDLE] [--threads N]

The roof of a component is the least time that the measured peaks allow for its FLOPs and for its
weights, inputs and outputs read or written once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.analysis.costs import Cost, Sizes, cost_of, meta_inputs
from benchmarks.analysis.peaks import peaks, roof_ms
from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import CPU, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.flags import add_bundle_flags
from benchmarks.harness.machine import gpu_facts, usable_cpus
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.record import Status, record
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.timing import repeated_ms
from benchmarks.harness.worker import Worker
from benchmarks.harness.workload import SEED
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, LATENT_PX, Component
from engines.engine import Array, Engine
from engines.onnxruntime.cpu import open_on_cpu

REPEATS, QUICK_REPEATS = 10, 3
# CPUs compute in float32, whatever the bundle's precision.
ELEMENT_NBYTES = 4


def add_flags(flags: argparse.ArgumentParser) -> None:
    add_bundle_flags(flags)


def measured(*, quick: bool, bundle: Path, threads: int | None, **source: Any) -> dict[str, Any]:
    """A row per component; raises ReferenceMismatchError."""
    opened = Bundle.open(bundle)
    checkpoint = source_of(source_name(source, opened), opened)
    with opened_backend(bundle, CPU, threads) as backend:
        agreement = Reference(checkpoint, opened.manifest).check(backend.face_diffuser)
    found = measured_on("cpu", threads, quick=quick)
    dimensions = opened.manifest.dimensions
    rows = []
    for component, sizes in calls(dimensions.native_px):
        cost = cost_of(component, checkpoint, dimensions, sizes)
        engine = open_on_cpu(opened, component, threads)
        try:
            engine.bind(buffers_of(engine, component, opened, sizes))
            times = repeated_ms(engine.enqueue, repeats=QUICK_REPEATS if quick else REPEATS)
        finally:
            engine.close()
        rows.append(row(component, sizes, cost, summary(times).p50, found))
    facts = bundle_facts(opened, threads) | {"agreement": agreement.to_json(), "peaks": found}
    if gpu_facts() is not None:
        facts["gpu_peaks"] = measured_on("cuda", threads, quick=quick)
    return record("roofline", rows, gpu=None, facts=facts, seeds=[SEED])


def measured_on(device: str, threads: int | None, *, quick: bool) -> dict[str, Any]:
    """Peaks from a process of its own, so that no other library's threads are in the way."""
    cores = threads or usable_cpus()
    arguments = {"device": device, "threads": cores, "quick": quick}
    with Worker(peaks, arguments, threads=cores) as worker:
        return worker.ask()


def calls(native_px: int) -> list[tuple[Component, Sizes]]:
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


def row(
    component: Component, sizes: Sizes, cost: Cost, ms: float, peak: dict[str, Any]
) -> dict[str, Any]:
    """Achieved rates and their shares of the peaks."""
    least = (cost.weights + cost.io) * ELEMENT_NBYTES
    most = cost.operations * ELEMENT_NBYTES
    roof = roof_ms(cost.flops, least, peak, "fp32")
    return {
        "component": component.value,
        "status": Status.MEASURED.value,
        "rows": sizes.get("rows", sizes.get("n", sizes.get("images"))),
        "p50_ms": ms,
        "gflop": cost.flops / 1e9,
        "gflop_per_s": cost.flops / ms / 1e6,
        "share_of_matrix_peak": cost.flops / ms * 1e3 / peak["flop_per_s"]["fp32"],
        "least_mb": least / 1e6,
        "unfused_mb": most / 1e6,
        "least_gb_per_s": least / ms / 1e6,
        "share_of_memory_peak": least / ms * 1e3 / peak["bytes_per_s"],
        "flop_per_byte": cost.flops / least,
        "roof_ms": roof,
        "share_of_roof": roof / ms,
    }


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
