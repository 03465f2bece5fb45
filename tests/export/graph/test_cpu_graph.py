"""The CPU's graph: attention in one operator, the same numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.folder import Bundle
from engines.contract import NOISE_PREDICTORS, Component
from engines.gate import relative_l2
from export.graph.cpu_graph import cpu_graph

TOKENS, HEADS, SIZE = 12, 2, 8


def attention_graph(
    *, scale: float | None = None, masked: bool = False, read_twice: bool = False,
    perm: tuple[int, ...] = (0, 2, 1, 3),
) -> onnx.ModelProto:  # fmt: skip
    """Attention over [n, tokens, heads * size] with its heads split and joined around it."""
    split = np.array([-1, TOKENS, HEADS, SIZE], np.int64)
    joined = np.array([-1, TOKENS, HEADS * SIZE], np.int64)
    weights = [numpy_helper.from_array(split, "split"), numpy_helper.from_array(joined, "joined")]
    nodes = []
    for name in "qkv":
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}.split"]))
        nodes.append(helper.make_node("Transpose", [f"{name}.split"], [f"{name}.t"], perm=perm))
    inputs = ["q.t", "k.t", "v.t"]
    if masked:
        mask = np.tril(np.ones((TOKENS, TOKENS), bool))
        weights.append(numpy_helper.from_array(mask, "mask"))
        inputs.append("mask")
    settings: dict[str, Any] = {} if scale is None else {"scale": scale}
    nodes += [
        helper.make_node("Attention", inputs, ["seen"], "attend", **settings),
        helper.make_node("Transpose", ["seen"], ["seen.t"], perm=perm),
        helper.make_node("Reshape", ["seen.t", "joined"], ["out"]),
    ]
    shape: list[str | int | None] = ["n", TOKENS, HEADS * SIZE]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    if read_twice:
        outputs.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkv"],
        outputs,
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    model.ir_version = 10
    return model


def result(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    chance = np.random.RandomState(3)
    shape = (3, TOKENS, HEADS * SIZE)
    feeds = {name: chance.standard_normal(shape).astype(np.float32) for name in "qkv"}
    out: npt.NDArray[np.float32] = session.run(["out"], feeds)[0]
    return out


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_what_a_half_graph_casts_to_half_or_holds_in_half_becomes_single() -> None:
    """Or the CPU would round where a GPU does, and add types that do not fit."""
    half = numpy_helper.from_array(np.array([0.1], np.float16), "tenth")
    nodes = [
        helper.make_node("Constant", [], ["tenth"], value=half),
        helper.make_node("Cast", ["x"], ["rounded"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Cast", ["whole"], ["again"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["rounded", "tenth"], ["sum"]),
        helper.make_node("Add", ["sum", "again"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "casts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT16, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    model.ir_version = 10
    session = onnxruntime.InferenceSession(
        cpu_graph(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": np.array([1.0001], np.float32)})
    assert found.dtype == np.float32
    # The tenth was rounded when it was stored; the input is not rounded any more.
    assert found[0] == np.float32(1.0001) + np.float32(np.float16(0.1)) + 1


@pytest.mark.parametrize("scale", [None, 0.9])
def test_split_heads_become_one_operator(scale: float | None) -> None:
    model = attention_graph(scale=scale)
    fused = cpu_graph(model)
    onnx.checker.check_model(fused)
    assert operators(fused) == {"MultiHeadAttention": 1}
    assert relative_l2(result(fused), result(model)) <= 1e-6


@pytest.mark.parametrize(
    "kept",
    [
        attention_graph(masked=True),
        attention_graph(read_twice=True),
        attention_graph(perm=(0, 1, 2, 3)),
    ],
    ids=["masked", "read elsewhere", "heads not swapped"],
)
def test_other_attention_stays_as_it_is(kept: onnx.ModelProto) -> None:
    assert operators(cpu_graph(kept)) == operators(kept)


@pytest.mark.parametrize("component", NOISE_PREDICTORS)
def test_an_exported_unet_has_its_attention_fused(
    component: Component, golden_bundle: Path
) -> None:
    record = Bundle.open(golden_bundle).component(component)
    exported, on_cpu = (
        operators(onnx.load(golden_bundle / name, load_external_data=False))
        for name in (record.onnx, record.cpu_onnx)
    )
    # All but the first cross-attention, whose queries are shared by the guidance passes.
    assert exported["Attention"] == 8
    assert (on_cpu["MultiHeadAttention"], on_cpu["Attention"]) == (7, 1)
