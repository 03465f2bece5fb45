"""What the manifest keeps of a plan: what it was built from, for which GPU, and its proofs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from engines.contract import Component
from engines.plans.profiles import PlanOptions, options_from

PLANS_FOLDER = "plans"
TIMING_CACHE_NAME = "timing.cache"

# Raised when plans are built differently from the same inputs: older plans are then built again.
_BUILDER = 1

# Hardware-compatible plans run from this architecture on.
COMPATIBLE_FROM = 80


@dataclass(frozen=True, kw_only=True)
class PlanPrecision:
    """How the engine inspector says that a plan computes.

    layers: those of its layers that give floating-point tensors. half_layers: those of them whose
    floating-point outputs are all half precision. A fused block of many operators is one layer.
    """

    layers: int
    half_layers: int

    @property
    def half_share(self) -> float:
        """From 0 to 1."""
        return self.half_layers / self.layers if self.layers else 0.0


@dataclass(frozen=True, kw_only=True)
class PlanParity:
    """How far a plan is from the ONNX graph in float32 on the CPU, worst over the gate's inputs."""

    relative_l2: float
    bound: float
    cases: int


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """One plan. A plan runs on one architecture (sm_90 is 90) and one version of TensorRT.

    shapes: per optimization profile, by input tensor, smallest, best and largest shape. key:
    digest of all that the plan depends on. onnx_digest: the part of it that is the bundle's own.
    optimization_level: the level it was really built at. device_memory_nbytes: activation memory
    for the largest shapes.
    """

    component: Component
    profile: str
    architecture: int
    tensorrt: str
    cuda: str
    driver: str
    gpu: str
    options: PlanOptions
    optimization_level: int
    key: str
    onnx_digest: str
    path: str
    nbytes: int
    sha256: str
    shapes: tuple[dict[str, Any], ...]
    device_memory_nbytes: int
    precision: PlanPrecision
    parity: PlanParity
    build_s: float

    @property
    def name(self) -> str:
        """What it is called in the bundle: component, profile and architecture."""
        return plan_name(self.component, self.profile, self.architecture)

    def runs_on(self, architecture: int) -> bool:
        """Whether a GPU of this architecture can run it."""
        if self.options.hardware_compatible:
            return min(self.architecture, architecture) >= COMPATIBLE_FROM
        return architecture == self.architecture

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def plan_name(component: Component, profile: str, architecture: int) -> str:
    """Stem of a plan's files."""
    return f"{component}.{profile}.sm_{architecture}"


def plan_record(document: dict[str, Any]) -> PlanRecord:
    """A PlanRecord from its JSON form; raises TypeError, ValueError or KeyError."""
    changed = {
        "component": Component(document["component"]),
        "options": options_from(document["options"]),
        "precision": PlanPrecision(**document["precision"]),
        "parity": PlanParity(**document["parity"]),
        "shapes": tuple(_ranges(profile) for profile in document["shapes"]),
    }
    return PlanRecord(**(document | changed))


def _ranges(document: dict[str, Any]) -> dict[str, Any]:
    """Shapes of one optimization profile, as the tuples they were before JSON."""
    return {name: tuple(tuple(shape) for shape in shapes) for name, shapes in document.items()}


def plan_key(
    onnx_digest: str,
    tensorrt: str,
    architecture: int,
    shapes: tuple[dict[str, Any], ...],
    options: PlanOptions,
) -> str:
    """Digest of all that a plan depends on; equal keys mean interchangeable plans."""
    facts = {
        "builder": _BUILDER,
        "onnx": onnx_digest,
        "tensorrt": tensorrt,
        "architecture": architecture,
        "shapes": shapes,
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
