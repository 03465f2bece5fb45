"""Networks with the inputs and outputs of those that judge photographs, and answers known ahead.

The detector finds a face wherever a cell of 8 px is bright, of 16 px around the cell's corner. The
face model tells a face's mean color. The CLIP model has random weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.paths import GOLDEN

SIDE_PX = 64
FACE_SIDE_PX = 112


def detector(path: Path) -> Path:
    """YuNet's outputs; only those of stride 8 ever find anything."""
    nodes, outputs, weights = [], [], []
    for stride in (8, 16, 32):
        cells = (SIDE_PX // stride) ** 2
        shape = numpy_helper.from_array(np.array([1, -1, 1]), f"shape_{stride}")
        mean = numpy_helper.from_array(np.full((1, 3, 1, 1), 1 / (3 * 255), np.float32),
                                       f"mean_{stride}")  # fmt: skip
        gain = numpy_helper.from_array(
            np.array(1.0 if stride == 8 else 0.0, np.float32), f"gain_{stride}"
        )
        # Twice the stride wide and high; the points as in a face of 16 px.
        box = np.tile(np.array([0, 0, np.log(2), np.log(2)], np.float32), (1, cells, 1))
        points = np.array([-0.5, -0.5, 0.5, -0.5, 0, 0, -0.4, 0.5, 0.4, 0.5], np.float32)
        weights += [shape, mean, gain]
        weights.append(numpy_helper.from_array(box, f"boxes_{stride}"))
        weights.append(numpy_helper.from_array(np.tile(points, (1, cells, 1)), f"points_{stride}"))
        nodes += [
            helper.make_node("Conv", ["input", f"mean_{stride}"], [f"gray_{stride}"]),
            helper.make_node(
                "AveragePool", [f"gray_{stride}"], [f"pooled_{stride}"],
                kernel_shape=[stride, stride], strides=[stride, stride],
            ),
            helper.make_node("Mul", [f"pooled_{stride}", f"gain_{stride}"], [f"said_{stride}"]),
            helper.make_node("Reshape", [f"said_{stride}", f"shape_{stride}"], [f"cls_{stride}"]),
            helper.make_node("Identity", [f"cls_{stride}"], [f"obj_{stride}"]),
            helper.make_node("Identity", [f"boxes_{stride}"], [f"bbox_{stride}"]),
            helper.make_node("Identity", [f"points_{stride}"], [f"kps_{stride}"]),
        ]  # fmt: skip
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs.append(_value(f"{name}_{stride}", [1, cells, width]))
    return _saved(path, nodes, [_value("input", [1, 3, SIDE_PX, SIDE_PX])], outputs, weights)


def face_model(path: Path, side_px: int = FACE_SIDE_PX) -> Path:
    """The mean of each color over the middle half of the face."""
    quarter = side_px // 4
    axes = {"starts": [quarter] * 2, "ends": [-quarter] * 2, "axes": [2, 3]}
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in axes.items()]
    nodes = [
        helper.make_node("Slice", ["data", *axes], ["middle"]),
        helper.make_node("ReduceMean", ["middle"], ["fc1"], axes=[2, 3], keepdims=0),
    ]
    inputs = [_value("data", [1, 3, side_px, side_px])]
    return _saved(path, nodes, inputs, [_value("fc1", [1, 3])], weights)


def clip(folder: Path) -> Path:
    """In transformers' layout, with the golden checkpoint's tokenizer."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    encoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
               "num_attention_heads": 2, "projection_dim": 8}  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(GOLDEN / "base" / "tokenizer")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config=encoder | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config=encoder | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto],
) -> Path:
    graph = helper.make_graph(nodes, "stand-in", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
