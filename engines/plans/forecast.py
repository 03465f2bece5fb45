"""How much GPU memory a build will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.contract import CONTRACTS
from engines.plans.job import PlanJob
from engines.tensorrt.machine import Machine

# Tensors of the contract have at most four bytes an element.
_ELEMENT_NBYTES = 4


@dataclass(frozen=True, kw_only=True)
class Forecast:
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


def forecast(job: PlanJob, machine: Machine) -> Forecast:
    """Forecast a job's memory from sizes alone."""
    workspace_mib = job.spec.options.workspace_mib
    elements = 0
    for ranges in job.spec.shapes:
        largest = {name: shapes[2] for name, shapes in ranges.items()}
        contract = CONTRACTS[job.spec.component]
        shapes = contract.shapes(job.dimensions.sizes() | contract.sizes(largest))
        elements = max(elements, sum(int(np.prod(shape)) for shape in shapes.values()))
    return Forecast(
        name=job.name,
        weights_nbytes=job.weights_nbytes,
        tensors_nbytes=elements * _ELEMENT_NBYTES,
        workspace_nbytes=None if workspace_mib is None else workspace_mib << 20,
        free_nbytes=machine.free_nbytes,
        total_nbytes=machine.total_nbytes,
    )


def _mib(nbytes: int) -> str:
    return f"{-(-nbytes // 2**20)} MiB"
