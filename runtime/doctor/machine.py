"""What of this machine decides how pictures are drawn: packages, GPU, libraries, disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from engines.cuda.driver import driver, version_text
from engines.cuda.gpu import opened_gpu
from engines.errors import (
    DriverTooOldError,
    FaceDiffuserError,
    NotInstalledError,
    ProviderUnavailableError,
)
from engines.onnxruntime.library import CPU_PROVIDER, CUDA_PROVIDER, PACKAGES, onnxruntime_with
from engines.tensorrt.library import check_wheels, tensorrt
from engines.tensorrt.machine import check_driver, driver_version
from runtime.doctor.finding import Finding, State, of_error

_LITTLE_DISK_NBYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """The first GPU as the driver tells it."""

    name: str
    architecture: int
    cuda_version: int
    free_nbytes: int
    total_nbytes: int


def installed_packages() -> list[str]:
    """Names of all installed packages, in lower case with dashes."""
    names = (distribution.metadata["Name"] or "" for distribution in distributions())
    return sorted({name.lower().replace("_", "-") for name in names})


def package_findings(packages: Sequence[str]) -> Iterator[Finding]:
    """Packages that must not be installed side by side."""
    clashes = 0
    if {"onnxruntime", "onnxruntime-gpu"} <= set(packages):
        clashes += 1
        yield Finding(
            about="packages", state=State.PROBLEM, fix=PACKAGES[CUDA_PROVIDER],
            text="onnxruntime and onnxruntime-gpu are the same module; the one installed last "
            "hides the other",
        )  # fmt: skip
    try:
        check_wheels(packages)
    except ProviderUnavailableError as error:
        clashes += 1
        yield of_error("packages", State.PROBLEM, error)
    if not clashes:
        yield Finding(about="packages", state=State.OK, text="no two that clash")


def gpu_findings() -> tuple[GpuFacts | None, list[Finding]]:
    """The driver and the GPU."""
    try:
        bindings = driver()
        with opened_gpu(bindings) as gpu:
            free, total = gpu.free_nbytes()
            facts = GpuFacts(
                name=gpu.name, architecture=gpu.architecture, cuda_version=gpu.cuda_version,
                free_nbytes=free, total_nbytes=total,
            )  # fmt: skip
    except FaceDiffuserError as error:
        state = State.PROBLEM if isinstance(error, DriverTooOldError) else State.NOTE
        return None, [of_error("GPU", state, error, fix="nvidia-smi")]
    version = version_text(facts.cuda_version)
    return facts, [
        Finding(
            about="driver", state=State.OK, text=f"{driver_version()}, up to CUDA {version}"
        ),
        Finding(
            about="GPU", state=State.OK,
            text=f"{facts.name}, sm_{facts.architecture}, {facts.free_nbytes >> 20} of "
            f"{facts.total_nbytes >> 20} MiB free",
        ),
    ]  # fmt: skip


def tensorrt_findings(
    gpu: GpuFacts | None, packages: Sequence[str]
) -> tuple[str | None, list[Finding]]:
    """TensorRT's version, if this machine can run it."""
    try:
        version = tensorrt().__version__
        if gpu is not None:
            check_driver(version, gpu.cuda_version, packages)
    except ProviderUnavailableError as error:
        state = State.NOTE if isinstance(error, NotInstalledError) else State.PROBLEM
        return None, [of_error("TensorRT", state, error)]
    return version, [Finding(about="TensorRT", state=State.OK, text=version)]


def onnxruntime_finding(gpu: GpuFacts | None) -> Finding:
    """ONNX Runtime for the GPU where there is one, else for the CPU."""
    try:
        module = onnxruntime_with(CPU_PROVIDER if gpu is None else CUDA_PROVIDER)
    except ProviderUnavailableError as error:
        return of_error("ONNX Runtime", State.PROBLEM if gpu is None else State.NOTE, error)
    there = ", ".join(module.get_available_providers())
    return Finding(about="ONNX Runtime", state=State.OK, text=f"{module.__version__} with {there}")


def disk_finding(path: Path) -> Finding:
    """Room where a bundle lies or would lie."""
    while not path.exists():
        path = path.absolute().parent
    free = shutil.disk_usage(path).free
    state = State.OK if free >= _LITTLE_DISK_NBYTES else State.NOTE
    return Finding(about="disk", state=state, text=f"{free >> 20} MiB free at {path.absolute()}")
