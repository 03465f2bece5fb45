"""Checks of a graph against what TensorRT's parser builds from, naming the node that fails."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from engines.bundle.manifest import Precision
from engines.errors import FaceDiffuserError
from export.graph.cpu_graph import FUSED_ATTENTION, MICROSOFT_DOMAIN
from export.graph.file import load_graph


class LintError(FaceDiffuserError):
    """A graph TensorRT's parser would refuse or build in another precision."""


# Operators of TensorRT 10.9 to 11's ONNX parser (its table) that diffusion models may use.
_OPERATORS = """
Abs Add And ArgMax AveragePool Attention Cast Ceil Clip Concat Constant ConstantOfShape
Conv ConvTranspose Cos Div Einsum Equal Erf Exp Expand Flatten Floor Gather GatherND
Gelu Gemm GlobalAveragePool Greater GreaterOrEqual GroupNormalization Identity
InstanceNormalization LayerNormalization Less LessOrEqual Log MatMul Max MaxPool Min Mod
Mul Neg Not Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu
Reshape Resize Round Shape Sigmoid Sign Sin Size Slice Softmax Split Sqrt Squeeze Sub
Sum Swish Tanh Tile Transpose Unsqueeze Where Xor
"""
SUPPORTED_OPERATORS = frozenset(_OPERATORS.split())
_CPU_OPERATORS = frozenset({(MICROSOFT_DOMAIN, FUSED_ATTENTION)})
_TYPES = onnx.TensorProto
SUPPORTED_TYPES = frozenset(
    {_TYPES.FLOAT, _TYPES.FLOAT16, _TYPES.INT64, _TYPES.INT32, _TYPES.BOOL, _TYPES.UNDEFINED}
)
# Operators whose floating-point operands TensorRT requires to be of one type.
_FLOATING = frozenset({_TYPES.FLOAT, _TYPES.FLOAT16})
_MAY_MIX = frozenset({"Cast", "Shape", "Size", "Resize", "Where", "Gather"})


def lint(path: Path, precision: Precision, *, cpu_operators: bool = False) -> None:
    """Raise LintError naming the first node that TensorRT could not build as it stands.

    cpu_operators: allow ONNX Runtime's own operators, which graphs for CPUs have.
    """
    model = load_graph(path)
    onnx.checker.check_model(str(path))
    _check_operators(model, path, _CPU_OPERATORS if cpu_operators else frozenset())
    _check_types(model, path, precision)


def polygraphy_lint(path: Path) -> None:
    """Polygraphy's own lint, in a process of its own; raises LintError with its first finding.

    It sees the weights as inputs of the graph: it looks at nodes, types and shapes, and would hold
    a full-size U-Net's weights several times at once.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph, report = Path(folder) / path.name, Path(folder) / "report.json"
        model = _weights_as_inputs(load_graph(path))
        onnx.save(model, graph)
        start = "import sys; from polygraphy.tools import main; sys.exit(main())"
        command = [sys.executable, "-c", start, "check", "lint", str(graph), "-o", str(report)]
        command += ["--input-shapes", *map(_smallest_shape, model.graph.input)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.is_file():
            raise LintError(f"polygraphy could not lint {path.name}: {finished.stderr[-500:]}")
        entries = json.loads(report.read_text())["lint_entries"]
    for entry in entries:
        if entry["level"] == "exception":
            nodes = ", ".join(entry.get("nodes", [])) or "the graph"
            raise LintError(f"{path.name}: polygraphy's lint fails at {nodes}: {entry['message']}")


def _weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Declare what lies in the weights file as inputs, with their types and shapes."""
    initializers = list(model.graph.initializer)
    del model.graph.initializer[:]
    for each in initializers:
        if each.data_location == onnx.TensorProto.EXTERNAL:
            value = onnx.helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))
            model.graph.input.append(value)
        else:
            model.graph.initializer.append(each)
    return model


def _smallest_shape(value: onnx.ValueInfoProto) -> str:
    """An input with the smallest shape it takes, in Polygraphy's notation."""
    smallest = {"n": 1, "images": 1, "rows": 2, "h": 8, "w": 8}
    sizes = [
        str(size.dim_value or smallest[size.dim_param]) for size in value.type.tensor_type.shape.dim
    ]
    return f"{value.name}:[{','.join(sizes)}]"


def _check_operators(
    model: onnx.ModelProto, path: Path, others: frozenset[tuple[str, str]]
) -> None:
    for node in model.graph.node:
        if (node.domain, node.op_type) in others:
            continue
        if node.domain or node.op_type not in SUPPORTED_OPERATORS:
            raise LintError(
                f"{path.name}: node {node.name} is {node.domain or 'ai.onnx'}::{node.op_type}, "
                "which TensorRT's parser does not build; replace it in the exported module"
            )


def _check_types(model: onnx.ModelProto, path: Path, precision: Precision) -> None:
    """No unsupported type, no node that mixes half and single, half where half was asked for."""
    graph = model.graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in [*graph.input, *graph.output, *graph.value_info]
    }
    types |= {initializer.name: initializer.data_type for initializer in graph.initializer}
    heavy = {"Conv", "MatMul", "Gemm", "Attention", FUSED_ATTENTION}
    expected = _TYPES.FLOAT16 if precision is Precision.FP16 else _TYPES.FLOAT
    for node in graph.node:
        operands = [types.get(name, _TYPES.UNDEFINED) for name in [*node.input, *node.output]]
        if unsupported := set(operands) - SUPPORTED_TYPES:
            names = ", ".join(_TYPES.DataType.Name(each) for each in unsupported)
            raise LintError(f"{path.name}: node {node.name} has type {names}, unknown to TensorRT")
        floating = {types.get(name, _TYPES.UNDEFINED) for name in node.input} & _FLOATING
        if len(floating) > 1 and node.op_type not in _MAY_MIX:
            raise LintError(f"{path.name}: node {node.name} ({node.op_type}) mixes half and single")
        if node.op_type in heavy and floating and floating != {expected}:
            raise LintError(
                f"{path.name}: node {node.name} ({node.op_type}) does not compute in {precision}"
            )
