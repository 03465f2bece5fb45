"""The layers of a built engine, as the build log or the engine inspector tells of them.

Both say of a layer its name, its type and its operands, each with dimensions and element type: the
log of a build in one line of text, the inspector in JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Where a type is one of these the layer multiplies matrices, convolves, or is fused around that.
_COMPUTES = re.compile(r"gemm|mat(?:rix)?_?mul|conv|correlation|runtime_fusion|attention", re.I)
# Attention as one layer, whatever type the compiler gives it.
_ATTENTION = re.compile(r"_mha(?:_|\b)", re.I)
_WIDE = re.compile(r"\b(?:float|double|fp32|fp64)\b", re.I)
_NARROW = re.compile(r"\b(?:half|fp16|bfloat16|bf16)\b", re.I)
# A list of tensors ends where the next part or field begins.
_PARTS = {
    part: re.compile(part + r": \[ *(?:\{.*?\}(?:, )?)*\]")
    for part in ("Inputs", "Constants", "Outputs")
}
_EIGHT_BIT = re.compile(r"\b(?:fp8|int8)\b", re.I)
_OPERAND = re.compile(r"Dimensions: \[([-\d,]*)\][^{}]*?Datatype: (\w+)")


@dataclass(frozen=True)
class Operand:
    """elements: None where the dimensions are not told."""

    dtype: str
    elements: int | None

    @property
    def is_floating(self) -> bool:
        return bool(_WIDE.search(self.dtype) or _NARROW.search(self.dtype))

    @property
    def is_eight_bit(self) -> bool:
        return bool(_EIGHT_BIT.search(self.dtype))

    @property
    def is_wide(self) -> bool:
        """Floating-point, wider than half, and more than a scalar."""
        return bool(_WIDE.search(self.dtype)) and self.elements != 1


@dataclass(frozen=True)
class EngineLayer:
    """operands: inputs, constants and outputs. nodes: names of the ONNX nodes that it does the work
    of. inputs, outputs: each alone. constants: their names. All but operands as far as told."""

    name: str
    kind: str
    operands: tuple[Operand, ...]
    nodes: frozenset[str] = frozenset()
    inputs: tuple[Operand, ...] = ()
    outputs: tuple[Operand, ...] = ()
    constants: tuple[str, ...] = ()

    @property
    def multiplies_eight_bits(self) -> bool:
        return self.computes and any(each.is_eight_bit for each in self.inputs)

    @property
    def has_eight_bit_constants(self) -> bool:
        constants = self.operands[len(self.inputs) : len(self.operands) - len(self.outputs)]
        return any(each.is_eight_bit for each in constants)

    @property
    def is_wide(self) -> bool:
        """Whether an operand is wider than half and more than a number.

        Products of 8 bits have scales and biases in single precision, a number for each channel.
        """
        told = self.inputs + self.outputs if self.multiplies_eight_bits else self.operands
        return any(each.is_wide for each in told)

    @property
    def is_attention(self) -> bool:
        return bool(_ATTENTION.search(self.name))

    @property
    def computes(self) -> bool:
        return self.is_attention or bool(_COMPUTES.search(self.kind))

    @property
    def is_told(self) -> bool:
        """Whether any operand's type is known."""
        return any(operand.is_floating for operand in self.operands)


def layers_of_log(verbose: Sequence[str]) -> list[EngineLayer]:
    """Layers of the last engine that a build's verbose messages tell of; none where they do not."""
    starts = [n for n, message in enumerate(verbose) if message.strip().startswith("Layers:")]
    if not starts:
        return []
    lines = (line for message in verbose[starts[-1] :] for line in message.splitlines())
    return [_layer_of_line(line) for line in lines if line.startswith("Name: ")]


def _layer_of_line(line: str) -> EngineLayer:
    name, _, rest = line.removeprefix("Name: ").partition(", LayerType: ")
    nodes = re.findall(r"\[ONNX Layer: ([^\]]+)\]", rest)
    texts = {
        part: found.group() if (found := pattern.search(rest)) else ""
        for part, pattern in _PARTS.items()
    }
    inputs, constants, outputs = map(_operands_of_text, texts.values())
    return EngineLayer(
        name=name,
        kind=rest.partition(",")[0],
        operands=inputs + constants + outputs,
        nodes=frozenset(nodes),
        inputs=inputs,
        outputs=outputs,
        constants=tuple(re.findall(r"Name: (\S+),", texts["Constants"])),
    )


def _operands_of_text(text: str) -> tuple[Operand, ...]:
    return tuple(
        Operand(dtype, _elements(size.split(","))) for size, dtype in _OPERAND.findall(text)
    )


def layers_of_inspector(information: str) -> list[EngineLayer]:
    """Layers of the inspector's JSON, in the form of TensorRT 10 or of 11.

    TensorRT 10 says {"Format/Datatype": "Row major linear FP16 format"} of a tensor, TensorRT 11
    splits that in two fields, one of them named like {"DataType": "Half"}. A layer that is no more
    than a name has no operands.
    """
    layers = json.loads(information)["Layers"]
    return [
        EngineLayer(str(each.get("Name", "")), str(each.get("LayerType", "")), (*_operands(each),))
        if isinstance(each, dict)
        else EngineLayer(str(each), "", ())
        for each in layers
    ]


def _operands(layer: dict[str, Any]) -> Iterator[Operand]:
    for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])]:
        if not isinstance(tensor, dict):
            continue
        fields = [
            str(v) for k, v in tensor.items() if re.fullmatch(r"(?i)(format|data ?type|/)+", k)
        ]
        yield Operand(" ".join(fields), _elements(tensor.get("Dimensions")))


def _elements(dimensions: Any) -> int | None:
    if not isinstance(dimensions, list):
        return None
    return math.prod(int(size) for size in dimensions if str(size))
