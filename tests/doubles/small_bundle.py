"""A bundle of six tiny half-precision graphs that honor the contract, made without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.files import file_record
from engines.bundle.folder import TOKENIZER_PATH
from engines.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    ComponentRecord,
    Dimensions,
    Manifest,
    NoiseSchedule,
    Precision,
)
from engines.contract import CONTRACTS, Component, ElementType
from export.graph.cpu_graph import cpu_graph
from export.graph.file import load_graph
from tests.doubles.small_tokenizer import VOCABULARY, clip_tokenizer

WIDTH = 8
DIMENSIONS = Dimensions(
    tokens=77,
    text_width=WIDTH,
    subject_width=WIDTH,
    latent_channels=4,
    image_px=16,
    native_px=64,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
)
_FIXED = {"tokens": 77, "text_width": WIDTH, "subject_width": WIDTH, "latent_channels": 4}
_FIXED["image_px"] = 16
_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
_KINDS = {
    ElementType.FLOAT: _HALF,
    ElementType.FLOAT32: _SINGLE,
    ElementType.INT32: TensorProto.INT32,
    ElementType.BOOL: TensorProto.BOOL,
}


class _Graph:
    """Nodes and weights of one component."""

    def __init__(self, component: Component) -> None:
        self._component = component
        self._random = np.random.RandomState(len(component))
        self._nodes: list[onnx.NodeProto] = []
        self._kinds: dict[str, int] = {}
        self._weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        values = self._random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
        return self.constant(values.astype(np.float16))

    def constant(self, values: Any) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(
        self, kind: str, *inputs: str, output: str = "", of: int = _HALF, **attributes: Any
    ) -> str:
        output = output or f"{kind.lower()}{len(self._nodes)}"
        name = f"node_{output}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        self._kinds[output] = of
        return output

    def axes(self, *axes: int) -> str:
        return self.constant(np.array(axes, np.int64))

    def save(self, path: Path) -> None:
        contract = CONTRACTS[self._component]
        inputs, outputs = (
            [
                helper.make_tensor_value_info(
                    tensor.name,
                    _KINDS[tensor.element_type],
                    [_FIXED.get(str(size), size) for size in tensor.shape],
                )
                for tensor in tensors
            ]
            for tensors in (contract.inputs, contract.outputs)
        )
        known = {tensor.name for tensor in contract.tensors}
        kinds = [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in self._kinds.items()
            if name not in known
        ]
        graph = helper.make_graph(
            self._nodes, self._component.value, inputs, outputs, self._weights, value_info=kinds
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 10
        onnx.save_model(
            model, path, save_as_external_data=True, location=path.with_suffix(".data").name,
            size_threshold=64, convert_attribute=False,
        )  # fmt: skip


def half_bundle(path: Path, *, overflows: bool = False) -> Path:
    """Write a bundle that draws, in milliseconds; of what, nobody can say.

    overflows: the fusion MLP passes through numbers that half precision cannot hold.
    """
    folder = path / "onnx"
    folder.mkdir(parents=True)
    (path / "build").mkdir()
    tokenizer = path / TOKENIZER_PATH
    tokenizer.parent.mkdir()
    clip_tokenizer().save(str(tokenizer))
    records = {}
    for component in Component:
        _graph(component, overflows=overflows).save(folder / f"{component}.onnx")
        cpu = cpu_graph(load_graph(folder / f"{component}.onnx"))
        onnx.save(cpu, folder / f"{component}.cpu.onnx")
        names = [f"{component}{suffix}" for suffix in (".onnx", ".cpu.onnx", ".data")]
        records[component] = ComponentRecord(
            input_digest=component,
            onnx=f"onnx/{names[0]}",
            cpu_onnx=f"onnx/{names[1]}",
            files={f"onnx/{name}": file_record(folder / name) for name in names},
            parity={},
        )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        precision=Precision.FP16,
        opset=20,
        dimensions=DIMENSIONS,
        noise_schedule=NoiseSchedule(),
        components=records,
        files={TOKENIZER_PATH: file_record(tokenizer)},
        pipeline_parity={},
        sources={},
        tools={},
        licenses=[],
    )
    (path / MANIFEST_NAME).write_text(manifest.to_json())
    return path


def _graph(component: Component, *, overflows: bool) -> _Graph:
    graph = _Graph(component)
    match component:
        case Component.TEXT_ENCODER:
            embeds = graph.node("Gather", graph.weight(VOCABULARY, WIDTH), "input_ids")
            graph.node("MatMul", embeds, graph.weight(WIDTH, WIDTH), output="text_embeds")
        case Component.IMAGE_ENCODER:
            mean = graph.node("ReduceMean", "reference_pixels", graph.axes(2, 3), keepdims=0)
            graph.node("MatMul", mean, graph.weight(3, WIDTH), output="subject_embeds")
        case Component.FUSION_MLP:
            both = graph.node("Concat", "text_embeds", "token_subject_embeds", axis=2)
            mixed = graph.node("MatMul", both, graph.weight(2 * WIDTH, WIDTH))
            if overflows:
                large = np.float16(60000)
                mixed = graph.node("Mul", mixed, graph.constant(large), output="large")
                mixed = graph.node("Div", mixed, graph.constant(large), output="small_again")
            mask = graph.node("Unsqueeze", "subject_token_mask", graph.axes(2), of=TensorProto.BOOL)
            graph.node("Where", mask, mixed, "text_embeds", output="augmented_embeds")
        case Component.TDM_UNET | Component.SDM_UNET:
            _noise_predictor(graph)
        case Component.VAE_DECODER:
            wide = graph.node("Conv", "latents", graph.weight(192, 4, 3, 3), pads=[1] * 4)
            graph.node("DepthToSpace", wide, blocksize=8, output="pixels")
    return graph


def _noise_predictor(graph: _Graph) -> None:
    """Latents seen through a convolution, moved by prompt and timestep; one float32 island."""
    wave = graph.node("Sin", "timestep", of=_SINGLE)
    wave = graph.node("Cast", wave, to=_HALF)
    wave = graph.node("ReduceMean", wave, graph.axes(0), keepdims=1)
    seen = graph.node("Conv", "latents", graph.weight(4, 4, 3, 3), pads=[1] * 4)
    seen = graph.node("ReduceMean", seen, graph.axes(0), keepdims=1)
    told = graph.node("MatMul", "prompt_embeds", graph.weight(WIDTH, 4))
    told = graph.node("ReduceMean", told, graph.axes(1), keepdims=0)
    told = graph.node("Unsqueeze", told, graph.axes(2, 3))
    moved = graph.node("Add", seen, told)
    graph.node("Add", moved, wave, output="noise_prediction")
