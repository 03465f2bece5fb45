"""Builds of plans without any TensorRT, for what goes on around a build."""

from __future__ import annotations

from engines.bundle.files import file_record
from engines.bundle.plan_record import (
    BuildProofs,
    BuiltPlan,
    LayerPrecision,
    LibraryName,
    NetworkPrecision,
    PlanParity,
    ToldBy,
)
from engines.bundle.records import to_json
from engines.cli.progress import JsonDisplay
from engines.errors import PlanMemoryError
from engines.plans.building.child import OnEvent
from engines.plans.building.job import PlanJob


class Said(JsonDisplay):
    """Remembers sentences."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, text: str) -> None:
        self.sentences.append(text)

    def start(self, name: str, number: int, of: int, *, shares: bool = True) -> None:
        """Nothing to show."""


class Builds:
    """Builds of plans that are nothing but their spec, with what goes wrong on the way."""

    def __init__(self, stop_at: str = "", memory_above: int = 5) -> None:
        self.jobs: list[PlanJob] = []
        self._stop_at, self._memory_above = stop_at, memory_above

    def __call__(self, job: PlanJob, on_event: OnEvent) -> BuiltPlan:
        self.jobs.append(job)
        if job.name.startswith(self._stop_at or "-"):
            raise KeyboardInterrupt
        if job.optimization_level > self._memory_above:
            raise PlanMemoryError(f"{job.name}: TensorRT built nothing: out of memory")
        content = to_json(job.spec).encode()
        job.plan.parent.mkdir(parents=True, exist_ok=True)
        job.plan.write_bytes(content)
        if job.spec.library is LibraryName.TENSORRT:
            job.timing_cache.write_text(job.name)
        return BuiltPlan(
            file=file_record(job.plan),
            optimization_level=job.optimization_level,
            build_s=1.0,
            device_memory_nbytes=256,
            weights_nbytes=None,
            proofs=BuildProofs(
                network=NetworkPrecision(tensors=10, single=1, sinusoids=1),
                layers=LayerPrecision(
                    told_by=ToldBy.INSPECTOR, layers=10, compute_layers=4, half_layers=4
                ),
                attention=None,
            ),
            parity=None
            if job.spec.library is LibraryName.TENSORRT_RTX
            else PlanParity(
                relative_l2=1e-3, bound=1e-2, cases=3, gpu="Double of a GPU", driver="unknown"
            ),
        )

    @property
    def names(self) -> set[str]:
        return {f"{job.spec.component}.{job.spec.profile}" for job in self.jobs}
