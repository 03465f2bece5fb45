"""What the manifest keeps of a plan: what it was built from, for which GPU, and its proofs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from engines.bundle.files import FileRecord
from engines.bundle.records import Count, Nbytes, Range, Seconds
from engines.contract import Component, ShapeRanges
from engines.errors import FaceDiffuserError

PLANS_FOLDER = "plans"
TIMING_CACHE_NAME = "timing.cache"

MAX_OPTIMIZATION_LEVEL = 5

# Raised when plans are built differently from the same inputs: older plans are then built again.
_BUILDER = 2


class PlanOptionError(FaceDiffuserError, ValueError):
    """An option or profile that no plan can be built with."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How plans are built. The flags of engines.build take names, defaults and help from here."""

    optimization_level: int = field(
        default=3,
        metadata={
            "help": "0 to 5: how long TensorRT searches for fast kernels. Each level takes longer "
            "to build than the one before; TensorRT's own default is %(default)s"
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

    architecture: compute capability times ten (sm_90 is 90). tensorrt: the library's version.
    onnx_digest: of the model it is built from. shapes: per optimization profile, by input tensor,
    smallest, best and largest shape.
    """

    component: Component
    profile: str
    architecture: Count
    tensorrt: str
    onnx_digest: str
    shapes: tuple[ShapeRanges, ...]
    options: PlanOptions
    builder: int = _BUILDER

    @property
    def name(self) -> str:
        """What the plan is called in the bundle, and the stem of its files."""
        return f"{self.component}.{self.profile}.sm_{self.architecture}"

    @property
    def path(self) -> str:
        """Where the plan lies inside the bundle."""
        return f"{PLANS_FOLDER}/{self.name}.plan"


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """How the engine inspector says that a plan computes.

    layers: those of its layers that give floating-point tensors. half_layers: those of them whose
    floating-point outputs are all half precision. A fused block of many operators is one layer.
    """

    layers: Annotated[int, Range(0)]
    half_layers: Annotated[int, Range(0)]

    @property
    def half_share(self) -> float:
        """From 0 to 1."""
        return self.half_layers / self.layers if self.layers else 0.0


@dataclass(frozen=True, kw_only=True)
class PlanParity:
    """How far a plan is from the ONNX graph in float32 on the CPU, worst over the gate's inputs."""

    relative_l2: Annotated[float, Range(0)]
    bound: Annotated[float, Range(0)]
    cases: Count


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """What building and proving a plan found out.

    optimization_level: the level it was really built at. device_memory_nbytes: activation memory
    for the largest shapes.
    """

    file: FileRecord
    optimization_level: int
    build_s: Seconds
    device_memory_nbytes: Nbytes
    layer_precision: LayerPrecision
    parity: PlanParity


@dataclass(frozen=True, kw_only=True)
class BuiltOn:
    """The machine that built a plan. cuda: newest CUDA version its driver knows."""

    gpu: str
    driver: str
    cuda: str


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """One plan. It runs on one architecture and one version of TensorRT."""

    spec: PlanSpec
    built: BuiltPlan
    built_on: BuiltOn
