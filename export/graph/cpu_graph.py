"""The graph that ONNX Runtime's CPU provider runs, from the one that engines are built from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

# ONNX Runtime's own operators.
MICROSOFT_DOMAIN = "com.microsoft"
FUSED_ATTENTION = "MultiHeadAttention"


def cpu_graph(model: ModelProto) -> ModelProto:
    """The same graph for CPUs: in float32, with attention in ONNX Runtime's fused kernel.

    The standard's Attention holds all scores at once on CPUs, 1 GiB in a full-size U-Net; the fused
    one goes through them in blocks and is the faster, too. It reads the same external weights: each
    half-precision initializer keeps its bytes and is cast once when a session opens, since ONNX
    Runtime folds casts of constants. CPUs have no half arithmetic worth using.
    """
    cpu = ModelProto()
    cpu.CopyFrom(model)
    _compute_in_single(cpu.graph)
    if _fuse_attention(cpu.graph):
        cpu.opset_import.append(helper.make_opsetid(MICROSOFT_DOMAIN, 1))
    return cpu


def _compute_in_single(graph: GraphProto) -> None:
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    casts = []
    for initializer in graph.initializer:
        if initializer.data_type == half:
            name = initializer.name
            initializer.name = f"{name}.half"
            casts.append(
                helper.make_node("Cast", [initializer.name], [name], f"cast.{name}", to=single)
            )
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = single
            if attribute.HasField("t") and attribute.t.data_type == half:
                values = numpy_helper.to_array(attribute.t).astype("float32")
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
    _replace_nodes(graph, [*casts, *graph.node])


@dataclass(frozen=True)
class _Heads:
    """An Attention between the splitting of three [n, tokens, heads * size] and their joining."""

    inputs: list[str]
    output: str
    count: int
    scale: float | None

    def fused(self, name: str) -> NodeProto:
        """ONNX Runtime's operator, which splits and joins the heads itself."""
        attributes: dict[str, Any] = {"num_heads": self.count}
        if self.scale is not None:
            attributes["scale"] = self.scale
        return helper.make_node(
            FUSED_ATTENTION, self.inputs, [self.output], name, domain=MICROSOFT_DOMAIN, **attributes
        )


class _Uses:
    """Who makes and who reads each tensor of a graph."""

    def __init__(self, graph: GraphProto) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers = {name: node for node in graph.node for name in node.input}
        self._counts = Counter(name for node in graph.node for name in node.input)
        self._counts.update(value.name for value in graph.output)
        self._values = {
            each.name: numpy_helper.to_array(each)
            for each in graph.initializer
            if each.data_type == TensorProto.INT64 and not each.external_data
        }

    def heads(self, attention: NodeProto) -> _Heads | None:
        """What surrounds an Attention; None where it is masked, or its heads come otherwise."""
        splits = [self._split(name) for name in attention.input]
        joined = self._only_reader(attention.output[0], "Transpose")
        flat = joined and self._only_reader(joined.output[0], "Reshape")
        if len(splits) != 3 or None in splits or joined is None or flat is None:
            return None
        count = self._head_count(splits[0])
        if count is None or not _swaps_heads(joined):
            return None
        scale = next((each.f for each in attention.attribute if each.name == "scale"), None)
        return _Heads([split.input[0] for split in splits if split], flat.output[0], count, scale)

    def _split(self, name: str) -> NodeProto | None:
        """The Reshape to [n, tokens, heads, size] that a tensor is the transposed of."""
        swapped = self._makers.get(name)
        if swapped is None or swapped.op_type != "Transpose" or not _swaps_heads(swapped):
            return None
        split = self._makers.get(swapped.input[0])
        return split if split is not None and split.op_type == "Reshape" else None

    def _head_count(self, split: NodeProto | None) -> int | None:
        """The third size of a Reshape's target, where that is a constant."""
        if split is None:
            return None
        target = self._values.get(split.input[1])
        if target is None:
            sizes = self._makers.get(split.input[1])
            if sizes is None or sizes.op_type != "Concat" or len(sizes.input) != 4:
                return None
            target = self._values.get(sizes.input[2])
            return None if target is None or target.size != 1 else int(target.item())
        return int(target[2]) if target.size == 4 else None

    def _only_reader(self, name: str, operator: str) -> NodeProto | None:
        reader = self._readers.get(name)
        fits = reader is not None and reader.op_type == operator and self._counts[name] == 1
        return reader if fits else None


def _fuse_attention(graph: GraphProto) -> int:
    """Replace every Attention whose heads are split and joined around it; returns how many."""
    uses, count = _Uses(graph), 0
    nodes = list(graph.node)
    for index, node in enumerate(nodes):
        if node.op_type == "Attention" and (heads := uses.heads(node)) is not None:
            nodes[index] = heads.fused(node.name)
            count += 1
    made = {name for node in nodes if node.op_type == FUSED_ATTENTION for name in node.output}
    kept = [
        node for node in nodes if node.op_type == FUSED_ATTENTION or not made & set(node.output)
    ]
    _replace_nodes(graph, _needed(kept, {value.name for value in graph.output}))
    return count


def _needed(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """The nodes, in their order, that the outputs depend on."""
    needed, wanted = [], set(outputs)
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            needed.append(node)
    return needed[::-1]


def _swaps_heads(transpose: NodeProto) -> bool:
    return [list(each.ints) for each in transpose.attribute] == [[0, 2, 1, 3]]


def _replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
