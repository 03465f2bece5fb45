"""What of this machine decides how pictures are drawn: packages, GPU, libraries, disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from engines.bundle.plan_record import LibraryName
from engines.cuda.driver import OLDEST_FOR_MAJOR, driver, driver_version, version_text
from engines.cuda.gpu import opened_gpu
from engines.errors import (
    DriverTooOldError,
    FaceDiffuserError,
    NotInstalledError,
    ProviderUnavailableError,
)
from engines.onnxruntime.library import CPU_PROVIDER, CUDA_PROVIDER, PACKAGES, onnxruntime_with
from engines.onnxruntime.release import onnxruntime_on_gpu
from engines.tensorrt.libraries import LIBRARIES, TENSORRT, Library, instead_on
from engines.tensorrt.library import check_wheels, load
from engines.tensorrt.machine import check_driver
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
    for library in LIBRARIES.values():
        try:
            check_wheels(packages, library)
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
    cuda = version_text(facts.cuda_version)
    return facts, [
        Finding(about="driver", state=State.OK, text=f"{driver_version()}, up to CUDA {cuda}"),
        *_bindings_findings(facts.cuda_version),
        Finding(
            about="GPU", state=State.OK,
            text=f"{facts.name}, sm_{facts.architecture}, {facts.free_nbytes >> 20} of "
            f"{facts.total_nbytes >> 20} MiB free",
        ),
    ]  # fmt: skip


def _bindings_findings(cuda_version: int) -> Iterator[Finding]:
    """A word where NVIDIA does not support the installed cuda-bindings on this driver."""
    try:
        found = version("cuda-bindings")
    except PackageNotFoundError:
        return
    major = int(found.split(".")[0])
    if major > cuda_version // 1000:
        yield Finding(
            about="cuda-bindings", state=State.NOTE,
            fix=f'pip install "cuda-bindings<{major}"',
            text=f"{found} is for drivers for CUDA {major} ({OLDEST_FOR_MAJOR.get(major, 'newer')} "
            f"or newer), this one is for CUDA {version_text(cuda_version)}",
        )  # fmt: skip


def tensorrt_findings(
    gpu: GpuFacts | None, packages: Sequence[str]
) -> tuple[dict[LibraryName, str], list[Finding]]:
    """Versions of TensorRT and TensorRT for RTX, where this machine can run them."""
    versions, found = {}, []
    for library in LIBRARIES.values():
        release, finding = _library_finding(library, gpu, packages)
        found.append(finding)
        if release is not None:
            versions[library.name] = release
    return versions, found


def _library_finding(
    library: Library, gpu: GpuFacts | None, packages: Sequence[str]
) -> tuple[str | None, Finding]:
    try:
        release = load(library).__version__
        if gpu is not None:
            check_driver(library, release, gpu.cuda_version, packages)
    except ProviderUnavailableError as error:
        state = State.NOTE if isinstance(error, NotInstalledError) else State.PROBLEM
        return None, of_error(library.title, state, error)
    refused = instead_on(gpu.architecture) if gpu and library is not TENSORRT else None
    if refused is not None:
        return None, Finding(
            about=library.title, state=State.NOTE, text=f"{release}; not for this GPU: {refused}"
        )
    where = ", builds plans without a GPU" if library.builds_without_gpu and gpu is None else ""
    return release, Finding(about=library.title, state=State.OK, text=f"{release}{where}")


def onnxruntime_finding(gpu: GpuFacts | None) -> Finding:
    """ONNX Runtime for the GPU where there is one, else for the CPU."""
    try:
        if gpu is None:
            module = onnxruntime_with(CPU_PROVIDER)
        else:
            module = onnxruntime_on_gpu(gpu.cuda_version)
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
