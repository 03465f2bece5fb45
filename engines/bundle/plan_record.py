"""What the manifest keeps of a plan: what it was built from, for which GPU, and its proofs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from engines.bundle.files import FileRecord
from engines.bundle.quantization import Quantization
from engines.bundle.records import Count, Nbytes, Range, Seconds
from engines.contract import Component, ShapeRanges
from engines.errors import FaceDiffuserError

PLANS_FOLDER = "plans"
TIMING_CACHE_NAME = "timing.cache"

MAX_OPTIMIZATION_LEVEL = 5

# Raised when plans are built differently from the same inputs: older plans are then built again.
_BUILDER = 3


class LibraryName(StrEnum):
    """Who builds and runs a plan."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class PlanOptionError(FaceDiffuserError, ValueError):
    """An option or profile that no plan can be built with."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How plans are built. The flags of engines.build take names, defaults and help from here."""

    optimization_level: int = field(
        default=3,
        metadata={
            "help": "0 to 5: how long TensorRT searches for fast kernels. Each level takes longer "
            "to build than the one before; TensorRT's own default is %(default)s. TensorRT for RTX "
            "has no levels"
        },
    )
    workspace_mib: int | None = field(
        default=None,
        metadata={
            "help": "scratch memory that a single layer may use, in MiB. A limit makes memory "
            "predictable and rules out some fast kernels (default: all of the GPU's memory)"
        },
    )

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= MAX_OPTIMIZATION_LEVEL:
            raise PlanOptionError(
                f"optimization_level={self.optimization_level}, expected 0 to "
                f"{MAX_OPTIMIZATION_LEVEL}"
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise PlanOptionError(f"workspace_mib={self.workspace_mib}, expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class PlanSpec:
    """All that a plan depends on: plans of equal specs are interchangeable.

    library, version: what builds it. architectures: compute capabilities times ten (sm_90 is 90);
    empty stands for all that the library builds for without being asked. onnx_digest: of the model
    it is built from. shapes: per optimization profile, by input tensor, smallest, best and largest
    shape. quantization: which of the component's graphs it is built from; None for its own.
    """

    component: Component
    profile: str
    library: LibraryName
    version: str
    architectures: tuple[Count, ...]
    onnx_digest: str
    shapes: tuple[ShapeRanges, ...]
    options: PlanOptions
    builder: int = _BUILDER
    quantization: Quantization | None = None

    @property
    def target(self) -> str:
        """What the plan is for: sm_90, rtx-1.7 or rtx-1.7.sm_75."""
        named = "sm_" + "_".join(map(str, self.architectures))
        if self.library is LibraryName.TENSORRT:
            return named
        release = "rtx-" + ".".join(self.version.split(".")[:2])
        return f"{release}.{named}" if self.architectures else release

    @property
    def name(self) -> str:
        """What the plan is called in the bundle, and the stem of its files."""
        stem = (
            self.component if self.quantization is None else f"{self.component}.{self.quantization}"
        )
        return f"{stem}.{self.profile}.{self.target}"

    @property
    def path(self) -> str:
        """Where the plan lies inside the bundle."""
        return f"{PLANS_FOLDER}/{self.name}.plan"

    @property
    def is_static(self) -> bool:
        """Whether the plan takes one shape of each input, so that its network has no open sizes."""
        return len(self.shapes) == 1 and is_static(self.shapes[0])


def is_static(ranges: ShapeRanges) -> bool:
    """Whether smallest, best and largest shape of each input are the same."""
    return all(low == best == high for low, best, high in ranges.values())


class ToldBy(StrEnum):
    """Whose word it is how a plan's layers compute."""

    BUILD_LOG = "build log"
    INSPECTOR = "engine inspector"


@dataclass(frozen=True, kw_only=True)
class NetworkPrecision:
    """The parsed network, whose types bind the builder.

    tensors: floating-point outputs of its layers. single: those of them in single precision that
    have more than one element. sinusoids: those of these that come of the timestep alone.
    """

    tensors: Annotated[int, Range(0)]
    single: Annotated[int, Range(0)]
    sinusoids: Annotated[int, Range(0)]


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """The layers of the built engine; a fused block of many operators is one layer.

    compute_layers: matrix products, convolutions, fusions of them, attention. half_layers: those of
    them without a floating-point operand that is wider than half and has more than one element.
    """

    told_by: ToldBy
    layers: Annotated[int, Range(0)]
    compute_layers: Annotated[int, Range(0)]
    half_layers: Annotated[int, Range(0)]


@dataclass(frozen=True, kw_only=True)
class AttentionFusion:
    """nodes: Attention nodes of the graph. fused: those that are one layer of the engine.

    unfused: names of the others; only the VAE's single wide head may be among them.
    """

    nodes: Annotated[int, Range(0)]
    fused: Annotated[int, Range(0)]
    unfused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QuantizedLayers:
    """nodes: of the graph that were asked for in 8 bits, all of which are. layers: that do their
    work, as the compiler joins nodes. stored: weights in 8 bits of products in half."""

    nodes: Count
    layers: Count
    stored: Count = 0


@dataclass(frozen=True, kw_only=True)
class BuildProofs:
    """What the build itself proved; None where the library did not tell, or nothing was asked."""

    network: NetworkPrecision
    layers: LayerPrecision | None
    attention: AttentionFusion | None
    quantized: QuantizedLayers | None = None


@dataclass(frozen=True, kw_only=True)
class PlanParity:
    """How far a plan is from the ONNX graph in float32 on the CPU, worst over the gate's inputs.

    gpu, driver: where it was run.
    """

    relative_l2: Annotated[float, Range(0)]
    bound: Annotated[float, Range(0)]
    cases: Count
    gpu: str
    driver: str


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """What building and proving a plan found out.

    optimization_level: the level it was really built at. device_memory_nbytes: activation memory
    for the largest shapes. weights_nbytes: on the GPU; None where the library did not tell.
    parity: None where the plan was executed on no GPU yet.
    """

    file: FileRecord
    optimization_level: int
    build_s: Seconds
    device_memory_nbytes: Nbytes
    weights_nbytes: Nbytes | None
    proofs: BuildProofs
    parity: PlanParity | None

    @property
    def resident_nbytes(self) -> int:
        """What its weights take on the GPU; of its file where the library did not tell."""
        return self.weights_nbytes or self.file.nbytes


@dataclass(frozen=True, kw_only=True)
class BuiltOn:
    """The machine that built a plan, and made the proofs of its build.

    host: its system and processor. cuda: the newest CUDA version that its driver knows. gpu, driver
    and cuda are None where a library built that needs no GPU.
    """

    host: str
    gpu: str | None
    driver: str | None
    cuda: str | None


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """One plan. It runs on the architectures and the version of the library that it is for."""

    spec: PlanSpec
    built: BuiltPlan
    built_on: BuiltOn
