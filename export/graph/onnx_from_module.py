"""From a torch module to ONNX: one graph, one weights file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir
import torch
from torch import Tensor, nn
from torch.export import Dim

from engines.contract import CONTRACTS, Component
from export.graph.file import load_graph

# Initializers from this size on live in the weights file; smaller ones (shapes, scalars) inside.
EXTERNAL_NBYTES = 1024


def onnx_from_module(
    module: nn.Module, component: Component, example: dict[str, Tensor], opset: int, path: Path
) -> None:
    """Export a module in its own precision to `path` and a weights file beside it (`.data`).

    Dynamic where the contract has a symbol. example: inputs by tensor name, in the module's dtype,
    every symbolic dimension 2 or more. The module's weights are given up: it is empty afterwards.
    """
    contract = CONTRACTS[component]
    # Latents come in whole steps of 64 px, that is 8.
    height, width = 8 * Dim("h8", min=1, max=128), 8 * Dim("w8", min=1, max=128)
    # The tracer tells one from many, the graph does not: the gate runs it on one image as well.
    counts = {name: Dim(name, min=2) for name in ("n", "images", "rows")}
    symbols = counts | {"h": height, "w": width}
    shapes = {
        tensor.name: {
            axis: symbols[str(size)] for axis, size in enumerate(tensor.shape) if size in symbols
        }
        for tensor in contract.inputs
    }
    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs=example,
            dynamo=True,
            opset_version=opset,
            input_names=[tensor.name for tensor in contract.inputs],
            output_names=[tensor.name for tensor in contract.outputs],
            dynamic_shapes=shapes,
            optimize=True,
        )
    if program is None:
        raise RuntimeError(f"torch.onnx.export returned nothing for {component}")
    # onnx_ir writes weights straight from torch's memory, without a second copy of them.
    onnx_ir.save(
        program.model,
        path,
        external_data=path.with_suffix(".data").name,
        size_threshold_bytes=EXTERNAL_NBYTES,
    )
    # onnxscript's rewrite rules remember the last graph they saw, and with it all its weights:
    # those of the module, and those that were folded into others.
    for parameter in module.parameters():
        parameter.data = parameter.data.new_empty(0)
    for value in program.model.graph.initializers.values():
        value.const_value = None
    model = load_graph(path)
    _strip_debug_information(model)
    for values, tensors in (
        (model.graph.input, contract.inputs),
        (model.graph.output, contract.outputs),
    ):
        for value, tensor in zip(values, tensors, strict=True):
            _name_dimensions(value, tensor.shape)
    onnx.save(model, path)


def _name_dimensions(value: onnx.ValueInfoProto, shape: tuple[str | int, ...]) -> None:
    """Give symbolic dimensions the contract's names, where they are symbolic in the graph."""
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        if not dimension.HasField("dim_value"):
            dimension.dim_param = str(size)


def _strip_debug_information(model: onnx.ModelProto) -> None:
    """Remove stack traces and paths of this machine, so that equal weights give equal files."""
    del model.metadata_props[:]
    model.doc_string = ""
    del model.graph.metadata_props[:]
    # Types of intermediates are kept for the lint; shapes are derived again by every consumer.
    for value in model.graph.value_info:
        value.type.tensor_type.ClearField("shape")
        del value.metadata_props[:]
    for item in [*model.graph.node, *model.graph.initializer, *model.graph.input]:
        del item.metadata_props[:]
        item.doc_string = ""
    for value in model.graph.output:
        del value.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter and its dependencies' deprecation warnings off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
