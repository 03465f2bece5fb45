"""A half-precision graph with some of its nodes kept in float32: the islands that fix a drift."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

# A half-precision tensor before it was rounded, and after, as float32.
_EXACT, _WIDENED = ".exact", ".widened"


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor that the graph knows the type of."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    return types | {tensor.name: int(tensor.data_type) for tensor in graph.initializer}


def with_island(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy whose named nodes compute in float32, with casts where half precision meets them.

    Between two nodes of the island nothing is rounded.
    """
    return _with_single_nodes(model, set(names), alone=set())


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node computes in float32 and rounds its outputs to half precision.

    That is what half-precision hardware does with float32 accumulators. ONNX Runtime's CPU provider
    computes half nodes in float32 as well, but passes values from one to the next unrounded.
    """
    every = {node.name for node in model.graph.node if node.op_type != "Cast"}
    return _with_single_nodes(model, set(), alone=every)


def _with_single_nodes(
    model: onnx.ModelProto, island: set[str], alone: set[str]
) -> onnx.ModelProto:
    """A copy whose nodes in `island` and `alone` compute in float32; those alone round at once."""
    types = tensor_types(model)
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    graph = mixed.graph
    nodes: list[onnx.NodeProto] = []
    exact: set[str] = set()
    widened: set[str] = set()

    def cast(source: str, target: str, to: int) -> None:
        nodes.append(helper.make_node("Cast", [source], [target], f"cast.{target}", to=to))

    for node in graph.node:
        inside = node.name in island
        if not inside and node.name not in alone:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if types.get(name) != TensorProto.FLOAT16:
                continue
            if inside and name in exact:
                node.input[index] = name + _EXACT
                continue
            if name not in widened:
                cast(name, name + _WIDENED, TensorProto.FLOAT)
                widened.add(name)
            node.input[index] = name + _WIDENED
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16:
                node.output[index] = name + _EXACT
                cast(name + _EXACT, name, TensorProto.FLOAT16)
                if inside:
                    exact.add(name)
    del graph.node[:]
    graph.node.extend(nodes)
    return mixed


def consumers(model: onnx.ModelProto, names: Iterable[str]) -> list[str]:
    """Names of the nodes that read what the named nodes give."""
    given = {
        output for node in model.graph.node if node.name in set(names) for output in node.output
    }
    return [node.name for node in model.graph.node if given & set(node.input)]
