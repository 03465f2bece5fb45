"""The small bundle's U-Nets in 8 bits, made as a build makes them, at a scale for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnx

from engines.bundle.files import file_record
from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME
from engines.bundle.quantization import (
    Quantization,
    QuantizationError,
    QuantizationRecipe,
    QuantizedGraph,
)
from engines.contract import NOISE_PREDICTORS, Component
from export.graph.cpu_graph import cpu_graph
from export.graph.file import load_graph
from export.quantization.qdq import Format, quantized_graph, save_beside
from export.quantization.sites import Kind, Site

ERROR = QuantizationError(call=0.01, call_bound=0.02, guided=0.03, guided_bound=0.05, calls=3)
FORMATS = {
    Quantization.INT8: {Kind.MATRIX: Format.INT8, Kind.CONVOLUTION: Format.INT8},
    Quantization.FP8: {Kind.MATRIX: Format.FP8, Kind.CONVOLUTION: Format.INT8},
}


def add_quantized(
    bundle: Path,
    quantizations: Sequence[Quantization] = tuple(Quantization),
    components: Sequence[Component] = NOISE_PREDICTORS,
    peak: float = 4.0,
) -> None:
    """Put 8-bit graphs beside the U-Nets of a small bundle and name them in its manifest.

    peak: largest magnitude of an activation that is told apart.
    """
    manifest = Bundle.open(bundle).manifest
    records = dict(manifest.components)
    for component in components:
        made = {each: _quantized(bundle, component, each, peak) for each in quantizations}
        records[component] = dataclasses.replace(records[component], quantized=made)
    manifest = dataclasses.replace(manifest, components=records)
    (bundle / MANIFEST_NAME).write_text(manifest.to_json())


def _quantized(
    bundle: Path, component: Component, quantization: Quantization, peak: float
) -> QuantizedGraph:
    own = bundle / "onnx" / f"{component}.onnx"
    model, stem = load_graph(own), f"onnx/{component}.{quantization}"
    sites = [
        Site(
            node=node.name, kind=Kind.MATRIX if node.op_type == "MatMul" else Kind.CONVOLUTION,
            activation=node.input[0], weight=node.input[1], block="mid_block",
        )
        for node in model.graph.node
        if node.op_type in ("MatMul", "Conv")
    ]  # fmt: skip
    peaks = {(site.activation, form): peak for site in sites for form in Format}
    made = quantized_graph(model, sites, peaks, FORMATS[quantization], own.parent)
    names = [f"{stem}{suffix}" for suffix in (".onnx", ".cpu.onnx", ".data")]
    # What is as small as this would lie in the graph's own file.
    save_beside(made, own, bundle / names[0])
    onnx.save(cpu_graph(load_graph(bundle / names[0])), bundle / names[1])
    return QuantizedGraph(
        input_digest="of the double",
        onnx=names[0],
        cpu_onnx=names[1],
        files={name: file_record(bundle / name) for name in names if (bundle / name).exists()},
        recipe=QuantizationRecipe(
            nodes=tuple(site.node for site in sites),
            half_blocks=("up_blocks.0",),
            weights=("dq.of_up_blocks",),
        ),
        calibration="0" * 64,
        pictures=1,
        error=ERROR,
    )
