"""Other forms of an 8-bit graph than the shipped ones, for a GPU to tell whether they work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.graph.file import load_graph
from export.quantization.qdq import Format, dequantizer_of, quantized_graph
from export.quantization.sites import Kind, Site, output_axis


def scales_per_channel(model: ModelProto, half: Path) -> ModelProto:
    """The usual form: weights with a scale for each output channel, here of equal numbers.

    The builder then leaves a product's sum unscaled in half precision; a build's proof refuses it.
    """
    made = ModelProto()
    made.CopyFrom(model)
    initializers = {each.name: each for each in made.graph.initializer}
    quantized = {node.output[0] for node in made.graph.node if node.op_type == "QuantizeLinear"}
    readers = {name: node for node in made.graph.node for name in node.input}
    for node in made.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in quantized:
            continue
        weight, scale, zero = (initializers[name] for name in node.input)
        if scale.dims:
            continue
        axis = output_axis(readers[node.output[0]], len(weight.dims))
        channels = weight.dims[axis]
        number = numpy_helper.to_array(scale)
        scale.CopyFrom(numpy_helper.from_array(np.full(channels, number), scale.name))
        zeros = bytes(channels)
        zero.CopyFrom(helper.make_tensor(zero.name, zero.data_type, (channels,), zeros, raw=True))
        node.attribute.append(helper.make_attribute("axis", axis))
    return made


def fp8_throughout(model: ModelProto, half: Path) -> ModelProto:
    """Convolutions in FP8 as well, of which TensorRT for RTX documents nothing.

    What INT8 clips of an activation is clipped here too: the graph tells no larger value.
    """
    peaks, graph = _peaks(model), load_graph(half)
    alone = _stored_alone(model)
    quantized = {node.name for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = [
        Site(
            node=node.name,
            kind=Kind.CONVOLUTION if node.op_type == "Conv" else Kind.MATRIX,
            activation=node.input[0],
            weight=node.input[1],
            block="",
        )
        for node in graph.graph.node
        if len(node.input) > 1 and dequantizer_of(node.input[1]) in quantized
    ]
    stored = [site for site in found if site.weight in alone]
    sites = [site for site in found if site.weight not in alone]
    fp8 = {
        (site.activation, Format.FP8): peaks.get(
            (site.activation, Format.FP8), peaks.get((site.activation, Format.INT8), 0.0)
        )
        for site in sites
    }
    formats = dict.fromkeys(Kind, Format.FP8)
    return quantized_graph(graph, sites, fp8, formats, half.parent, stored=stored)


def _stored_alone(model: ModelProto) -> set[str]:
    """The weights in 8 bits that are multiplied in half: those with a scale for each channel."""
    initializers = {each.name: each for each in model.graph.initializer}
    return {
        node.input[0].removesuffix(".q")
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[1] in initializers
        and initializers[node.input[1]].dims
    }


def _peaks(model: ModelProto) -> dict[tuple[str, Format], float]:
    """Largest magnitude of each activation that a graph tells apart, by its scales."""
    initializers = {each.name: each for each in model.graph.initializer}
    peaks = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (initializers[name] for name in node.input[1:])
            form = Format.INT8 if zero.data_type == TensorProto.INT8 else Format.FP8
            peaks[node.input[0], form] = float(numpy_helper.to_array(scale)) * form.top
    return peaks
