"""What a build will take, told before it starts: memory of the GPU or the host, and room."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Dimensions
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component, ShapeRanges
from engines.errors import PlanBuildError
from engines.plans.building.job import PlanJob
from engines.plans.profiles import planned, profile_named
from engines.tensorrt.machine import ThisGpu
from engines.tensorrt.target import PlanTarget

# Tensors of the contract have at most four bytes an element.
_ELEMENT_NBYTES = 4
# Memory of a build without a GPU, measured on all components at full size: the weights as the file
# has them, as the network holds them and as the plan does, and the compiler itself.
_HOST_WEIGHTS, _HOST_NBYTES = 3.3, 0.3 * 2**30


# Activations of TensorRT for RTX's plans as its builder told them, in bytes: what every plan takes,
# and at full size for each row of an encoder, or each latent pixel of a U-Net's row. Of narrower
# models less; weights grow with the square of the width. The exponent lies between full size and
# the shipped model, for whose plans this is within a quarter.
_LEAST_ACTIVATIONS_NBYTES = 8_200_000
_NARROWER = 0.4


@dataclass(frozen=True)
class _FullSize:
    """A component of Stable Diffusion 1.5: its weights, and activations of one unit of its work."""

    weights_nbytes: int
    unit_nbytes: int


_FULL_SIZE = {
    Component.TEXT_ENCODER: _FullSize(245_923_840, 1_170_000),
    Component.IMAGE_ENCODER: _FullSize(607_488_008, 3_640_000),
    Component.FUSION_MLP: _FullSize(5_913_600, 310_000),
    Component.TDM_UNET: _FullSize(1_718_673_024, 9_800),
    Component.SDM_UNET: _FullSize(1_718_673_024, 9_800),
}
# The decoder's attention is not fused: its scores are latent pixels times latent pixels, and of one
# head whatever its width.
_SCORE_NBYTES = 20.4
# Code of a plan for each optimization profile; measured as the above.
_CODE_NBYTES = dict.fromkeys(Component, 5 << 20) | dict.fromkeys(NOISE_PREDICTORS, 22 << 20)


class Forecast(Protocol):
    """What one build will take. where: whose memory it is."""

    @property
    def name(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def expected_nbytes(self) -> int: ...
    @property
    def activations_nbytes(self) -> int | None: ...
    @property
    def fits(self) -> bool: ...
    def sentence(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class HostForecast:
    """Memory of the host for a build without a GPU, and what the plan then takes on one.

    activations_nbytes: estimated. free_nbytes: None where it is not told.
    """

    name: str
    weights_nbytes: int
    activations_nbytes: int
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
            f"{_mib(int(_HOST_NBYTES))}){free}; on a GPU its plan takes about "
            f"{_mib(self.weights_nbytes)} of weights and an estimated "
            f"{_mib(self.activations_nbytes)} of activations"
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
    activations_nbytes = None

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
            activations_nbytes=_activations_nbytes(job),
            free_nbytes=target.host_free_nbytes,
        )
    return _on_gpu(job, target.gpu)


def told_room(bundle: Bundle, jobs: Sequence[PlanJob]) -> str:
    """What a bundle will take with the plans of a build, in words; raises PlanBuildError without
    room for them."""
    nbytes = sum(
        plan_nbytes(job.spec.component, job.weights_nbytes, job.spec.shapes) for job in jobs
    )
    free_nbytes = shutil.disk_usage(bundle.path).free
    there_nbytes = sum(file.nbytes for file in bundle.manifest.all_files().values())
    told = f"{len(jobs)} plans add about {_mib(nbytes)} to {bundle.path}"
    if nbytes > free_nbytes:
        raise PlanBuildError(
            f"{told}, whose disk has {_mib(free_nbytes)} free; make room, or build some of them "
            "with --component"
        )
    return f"{told}, which has {_mib(there_nbytes)} of ONNX models and other files"


def plan_nbytes(component: Component, weights_nbytes: int, shapes: tuple[ShapeRanges, ...]) -> int:
    """About the size of a plan: the weights of its model, and code for each profile."""
    return weights_nbytes + len(shapes) * _CODE_NBYTES[component]


def plans_nbytes(
    weights_nbytes: Mapping[Component, int], profiles: Iterable[str], dimensions: Dimensions
) -> int:
    """About the size of all plans for some profiles of a model that is not exported yet."""
    sizes = {}
    for profile in profiles:
        for component, nbytes in weights_nbytes.items():
            for name, shapes in planned(component, profile_named(profile), dimensions):
                sizes[component, name] = plan_nbytes(component, nbytes, shapes)
    return sum(sizes.values())


def _activations_nbytes(job: PlanJob) -> int:
    units = max(_units(ranges) for ranges in job.spec.shapes)
    if job.spec.component is Component.VAE_DECODER:
        return _LEAST_ACTIVATIONS_NBYTES + int(_SCORE_NBYTES * units**2)
    full = _FULL_SIZE[job.spec.component]
    narrower = (job.weights_nbytes / full.weights_nbytes) ** _NARROWER
    return _LEAST_ACTIVATIONS_NBYTES + int(units * full.unit_nbytes * narrower)


def _units(ranges: ShapeRanges) -> int:
    """Rows of a call at its largest, times latent pixels where it has latents."""
    largest = {name: shapes[2] for name, shapes in ranges.items()}
    rows = max(shape[0] for shape in largest.values())
    height, width = largest["latents"][2:] if "latents" in largest else (1, 1)
    return rows * height * width


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
