"""One plan to build, as data that travels to the process that builds it, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.bundle.manifest import Dimensions, Precision
from engines.bundle.plan_record import BuiltPlan, PlanSpec
from engines.bundle.records import Nbytes
from engines.cli.progress import PhaseEvent


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """A plan's spec, and where its building finds and puts things; all paths are absolute.

    precision: of the graph. optimization_level: to build at, which is less than the options' where
    memory ran out. plan, log: what is written. timing_cache: read and written. cpu_onnx: the
    float32 graph that the plan is compared with. quantized_nodes: names of the graph's nodes that
    must compute in 8 bits. stored_nodes: names of those that dequantize the weight of a product in
    half; the builder may also fold them.
    """

    spec: PlanSpec
    precision: Precision
    dimensions: Dimensions
    optimization_level: int
    weights_nbytes: Nbytes
    onnx: Path
    cpu_onnx: Path
    plan: Path
    log: Path
    timing_cache: Path
    quantized_nodes: tuple[str, ...] = ()
    stored_nodes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the plan is called in the bundle."""
        return self.spec.name


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a plan was not built: the error's class name, its reason and what to type."""

    kind: str
    reason: str
    fix: str | None


@dataclass(frozen=True, kw_only=True)
class WorkerMessage:
    """What a worker says, one of these at a time."""

    progress: PhaseEvent | None = None
    built: BuiltPlan | None = None
    failure: Failure | None = None
