"""What a bundle says of a U-Net in 8 bits: which products, at what error, from what calibration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from engines.bundle.files import FileRecord
from engines.bundle.records import Count, InsidePath, Range, Sha256


class Quantization(StrEnum):
    """How a U-Net's products compute in 8 bits; its inputs and outputs stay as they are.

    INT8: all of them in INT8, for GPUs from sm_80 on and CPUs. FP8: matrices in FP8 (E4M3) and
    convolutions in INT8, for GPUs from sm_89 on.
    """

    INT8 = "int8"
    FP8 = "fp8"


# The first architecture whose tensor cores multiply in a quantization's formats.
LEAST_ARCHITECTURE = {Quantization.INT8: 80, Quantization.FP8: 89}


@dataclass(frozen=True, kw_only=True)
class QuantizationRecipe:
    """nodes: names of the graph's nodes in 8 bits. half_blocks: blocks that multiply in half.

    weights: names of the nodes that dequantize the weight, in 8 bits, of a product of these blocks.
    """

    nodes: tuple[str, ...]
    half_blocks: tuple[str, ...]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QuantizationError:
    """How far 8 bits are from half precision, on calls that calibration never saw.

    call: relative L2 of the noise prediction, the worst. guided: of the guided noise, the mean.
    """

    call: Annotated[float, Range(0)]
    call_bound: Annotated[float, Range(0)]
    guided: Annotated[float, Range(0)]
    guided_bound: Annotated[float, Range(0)]
    calls: Count


@dataclass(frozen=True, kw_only=True)
class QuantizedGraph:
    """One component in 8 bits, beside its half-precision graph.

    input_digest: of all that it depends on. onnx: for engines, takes and gives half precision.
    cpu_onnx: the same computing in float32 from the same 8-bit numbers. calibration: digest of the
    prompts, photos and seeds that the scales come from; pictures: how many trajectories.
    """

    input_digest: str
    onnx: InsidePath
    cpu_onnx: InsidePath
    files: dict[InsidePath, FileRecord]
    recipe: QuantizationRecipe
    calibration: Sha256
    pictures: Count
    error: QuantizationError

    def __post_init__(self) -> None:
        for graph in (self.onnx, self.cpu_onnx):
            if graph not in self.files:
                raise ValueError(f"{graph} is not among the quantized graph's files")
