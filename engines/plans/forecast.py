"""How much memory a build will take, told before it starts: of the GPU, or of the host."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engines.contract import CONTRACTS, NOISE_PREDICTORS
from engines.errors import PlanBuildError
from engines.plans.building.job import PlanJob
from engines.tensorrt.machine import ThisGpu
from engines.tensorrt.target import PlanTarget

# Tensors of the contract have at most four bytes an element.
_ELEMENT_NBYTES = 4
# Memory of a build without a GPU, measured on all components at full size: the weights as the file
# has them, as the network holds them and as the plan does, and the compiler itself.
_HOST_WEIGHTS, _HOST_NBYTES = 3.3, 0.3 * 2**30


class Forecast(Protocol):
    """What one build will take. where: whose memory it is."""

    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def expected_nbytes(self) -> int: ...
    @property
    def fits(self) -> bool: ...
    def sentence(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class HostForecast:
    """Memory of the host for a build without a GPU; free_nbytes: None where it is not told."""

    name: str
    weights_nbytes: int
    free_nbytes: int | None
    where = "this machine's memory"

    @property
    def expected_nbytes(self) -> int:
        return int(_HOST_WEIGHTS * self.weights_nbytes + _HOST_NBYTES)

    @property
    def fits(self) -> bool:
        return self.free_nbytes is None or self.expected_nbytes <= self.free_nbytes

    def sentence(self) -> str:
        free = "" if self.free_nbytes is None else f"; {_mib(self.free_nbytes)} are free"
        return (
            f"{self.name}: the build takes about {_mib(self.expected_nbytes)} of the host's memory "
            f"({_HOST_WEIGHTS} times the weights' {_mib(self.weights_nbytes)}, and "
            f"{_mib(int(_HOST_NBYTES))}){free}"
        )


@dataclass(frozen=True, kw_only=True)
class GpuForecast:
    """GPU memory of one build. What TensorRT needs for activations is known only afterwards.

    weights_nbytes: of the model. tensors_nbytes: inputs and outputs at the largest shapes.
    workspace_nbytes: what a layer may use while it is timed; None is all there is.
    """

    name: str
    weights_nbytes: int
    tensors_nbytes: int
    workspace_nbytes: int | None
    free_nbytes: int
    total_nbytes: int
    where = "this GPU"

    @property
    def least_nbytes(self) -> int:
        """The finished engine with its tensors, without its activations: no build takes less."""
        return self.weights_nbytes + self.tensors_nbytes

    @property
    def expected_nbytes(self) -> int:
        """The weights twice, as network and as engine, with tensors and the workspace limit."""
        return self.least_nbytes + self.weights_nbytes + (self.workspace_nbytes or 0)

    @property
    def fits(self) -> bool:
        return self.least_nbytes <= self.free_nbytes

    def sentence(self) -> str:
        limit = "all that is free" if self.workspace_nbytes is None else _mib(self.workspace_nbytes)
        return (
            f"{self.name}: the build takes about {_mib(self.expected_nbytes)} of GPU memory "
            f"(weights {_mib(self.weights_nbytes)}, held twice; tensors "
            f"{_mib(self.tensors_nbytes)}; workspace up to {limit}) and the engine's activations; "
            f"{_mib(self.free_nbytes)} of {_mib(self.total_nbytes)} are free"
        )


def forecast(job: PlanJob, target: PlanTarget) -> Forecast:
    """Forecast a job's memory from sizes alone."""
    if target.gpu is None:
        return HostForecast(
            name=job.name,
            weights_nbytes=job.weights_nbytes,
            free_nbytes=target.host_free_nbytes,
        )
    return _on_gpu(job, target.gpu)


def told_room(folder: Path, jobs: Sequence[PlanJob]) -> str:
    """How much the plans of a build add to a bundle, in words; raises PlanBuildError without room.

    A plan holds the weights of its model and code, of which the sum was measured at full size.
    """
    nbytes = sum(job.weights_nbytes + _code_nbytes(job) for job in jobs)
    free_nbytes = shutil.disk_usage(folder).free
    told = f"{len(jobs)} plans add about {_mib(nbytes)} to {folder}"
    if nbytes > free_nbytes:
        raise PlanBuildError(
            f"{told}, whose disk has {_mib(free_nbytes)} free; make room, or build some of them "
            "with --component"
        )
    return told


def _code_nbytes(job: PlanJob) -> int:
    return (22 if job.spec.component in NOISE_PREDICTORS else 5) << 20


def _on_gpu(job: PlanJob, gpu: ThisGpu) -> GpuForecast:
    workspace_mib = job.spec.options.workspace_mib
    elements = 0
    for ranges in job.spec.shapes:
        largest = {name: shapes[2] for name, shapes in ranges.items()}
        contract = CONTRACTS[job.spec.component]
        shapes = contract.shapes(job.dimensions.sizes() | contract.sizes(largest))
        elements = max(elements, sum(int(np.prod(shape)) for shape in shapes.values()))
    return GpuForecast(
        name=job.name,
        weights_nbytes=job.weights_nbytes,
        tensors_nbytes=elements * _ELEMENT_NBYTES,
        workspace_nbytes=None if workspace_mib is None else workspace_mib << 20,
        free_nbytes=gpu.free_nbytes,
        total_nbytes=gpu.total_nbytes,
    )


def _mib(nbytes: int) -> str:
    return f"{-(-nbytes // 2**20)} MiB"
