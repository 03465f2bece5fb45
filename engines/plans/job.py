"""One plan to build, as data that travels to the process that builds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.bundle.manifest import Dimensions, Precision, dimensions_from
from engines.bundle.plan_record import plan_name
from engines.contract import Component, ShapeRanges
from engines.plans.profiles import PlanOptions, options_from


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """Everything a plan is built from; all paths are absolute.

    shapes: per optimization profile. plan, log: what is written. timing_cache: read and written.
    cpu_onnx: the float32 graph that the plan is compared with.
    """

    component: Component
    profile: str
    architecture: int
    precision: Precision
    dimensions: Dimensions
    shapes: tuple[ShapeRanges, ...]
    options: PlanOptions
    optimization_level: int
    key: str
    onnx_digest: str
    weights_nbytes: int
    onnx: Path
    cpu_onnx: Path
    plan: Path
    log: Path
    timing_cache: Path

    @property
    def name(self) -> str:
        """What the plan is called in the bundle."""
        return plan_name(self.component, self.profile, self.architecture)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> PlanJob:
        document = json.loads(text)
        paths = ("onnx", "cpu_onnx", "plan", "log", "timing_cache")
        changed: dict[str, Any] = {name: Path(document[name]) for name in paths} | {
            "component": Component(document["component"]),
            "dimensions": dimensions_from(document["dimensions"]),
            "precision": Precision(document["precision"]),
            "options": options_from(document["options"]),
            "shapes": tuple(
                {name: tuple(tuple(shape) for shape in each) for name, each in ranges.items()}
                for ranges in document["shapes"]
            ),
        }
        return cls(**(document | changed))
