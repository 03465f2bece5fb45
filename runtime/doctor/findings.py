"""What of this machine and of a bundle decides how pictures are drawn, and what fixes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from engines import commands
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import KernelManifest
from engines.bundle.plan_record import BuiltPlan
from engines.cuda.driver import driver, version_text
from engines.cuda.gpu import opened_gpu
from engines.engine import Provider
from engines.errors import BundleError, FaceDiffuserError, ProviderUnavailableError
from engines.onnxruntime.cpu import CPU_PROVIDER, onnxruntime_with
from engines.onnxruntime.cuda import CUDA_PROVIDER, FIX
from engines.tensorrt.library import INSTALL, check_wheels, tensorrt
from engines.tensorrt.machine import check_driver, driver_version
from engines.tensorrt.plans_here import plans_for

_LITTLE_DISK_NBYTES = 2 << 30


class State(StrEnum):
    """NOTE: not there, and not needed by every backend. PROBLEM: in the way of all, or broken."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. fix: the command to type, where there is one."""

    about: str
    state: State
    text: str
    fix: str | None = None


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
            about="packages", state=State.PROBLEM, fix=FIX,
            text="onnxruntime and onnxruntime-gpu are the same module; the one installed last "
            "hides the other",
        )  # fmt: skip
    try:
        check_wheels(packages)
    except ProviderUnavailableError as error:
        clashes += 1
        text, _, fix = str(error).partition("; keep one: ")
        yield Finding(about="packages", state=State.PROBLEM, text=text, fix=fix)
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
        too_old = "driver is for CUDA" in str(error)
        fix = "pip install cuda-bindings" if "not installed" in str(error) else "nvidia-smi"
        state = State.PROBLEM if too_old else State.NOTE
        return None, [_fixable("GPU", state, error, fix)]
    version = version_text(facts.cuda_version)
    return facts, [
        Finding(
            about="driver", state=State.OK, text=f"{driver_version()}, up to CUDA {version}"
        ),
        Finding(
            about="GPU", state=State.OK,
            text=f"{facts.name}, sm_{facts.architecture}, {_mib(facts.free_nbytes)} of "
            f"{_mib(facts.total_nbytes)} MiB free",
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
        missing = find_spec("tensorrt") is None
        state = State.NOTE if missing else State.PROBLEM
        return None, [_fixable("TensorRT", state, error, INSTALL)]
    return version, [Finding(about="TensorRT", state=State.OK, text=version)]


def onnxruntime_findings(gpu: GpuFacts | None) -> tuple[list[str], list[Finding]]:
    """ONNX Runtime's providers."""
    try:
        module = onnxruntime_with(CPU_PROVIDER, "pip install --force-reinstall onnxruntime")
    except ProviderUnavailableError as error:
        fix = "pip install 'face-diffuser[cpu]'" if gpu is None else FIX
        state = State.NOTE if gpu is not None else State.PROBLEM
        return [], [_fixable("ONNX Runtime", state, error, fix)]
    providers = list(module.get_available_providers())
    there = f"{module.__version__} with {', '.join(providers)}"
    if gpu is not None and CUDA_PROVIDER not in providers:
        text = f"{there}: on this GPU it would compute on the CPU"
        return providers, [Finding(about="ONNX Runtime", state=State.NOTE, text=text, fix=FIX)]
    return providers, [Finding(about="ONNX Runtime", state=State.OK, text=there)]


def disk_finding(path: Path) -> Finding:
    """Room where a bundle lies or would lie."""
    while not path.exists():
        path = path.absolute().parent
    free = shutil.disk_usage(path).free
    state = State.OK if free >= _LITTLE_DISK_NBYTES else State.NOTE
    return Finding(about="disk", state=state, text=f"{_mib(free)} MiB free at {path.absolute()}")


def bundle_findings(
    path: Path, gpu: GpuFacts | None, tensorrt_version: str | None
) -> tuple[Bundle | None, list[Finding]]:
    """What a bundle has, and what of it this machine needs."""
    try:
        bundle = Bundle.open(path)
    except BundleError as error:
        plans = commands.plans_built(path)
        fix = plans if plans in str(error) else commands.rebuilt(path)
        return None, [_fixable("bundle", State.PROBLEM, error, fix)]
    found = [
        Finding(
            about="bundle", state=State.OK,
            text=f"{path}: {bundle.manifest.precision} at {bundle.manifest.dimensions.native_px} "
            f"px, {len(bundle.manifest.plans)} plans",
        )
    ]  # fmt: skip
    if gpu is not None:
        found.append(_kernels_finding(bundle, gpu))
        if tensorrt_version is not None:
            found.append(_plans_finding(bundle, gpu, tensorrt_version))
    return bundle, found


def provider_finding(found: Sequence[Finding], providers: Sequence[str]) -> Finding:
    """Which backend draws as things stand."""
    fine = {finding.about for finding in found if finding.state is State.OK}
    on_gpu = {"GPU", "kernels"} <= fine
    if on_gpu and {"TensorRT", "plans"} <= fine:
        return _drawn_on(Provider.TENSORRT)
    if on_gpu and CUDA_PROVIDER in providers:
        return _drawn_on(Provider.ONNXRUNTIME_CUDA)
    if CPU_PROVIDER in providers:
        return _drawn_on(Provider.ONNXRUNTIME_CPU)
    if find_spec("openvino") is not None:
        return _drawn_on(Provider.OPENVINO)
    return Finding(
        about="provider", state=State.PROBLEM, text="nothing here can draw",
        fix="pip install 'face-diffuser[cpu]'",
    )  # fmt: skip


def _drawn_on(provider: Provider) -> Finding:
    return Finding(about="provider", state=State.OK, text=f"pictures are drawn on {provider}")


def _kernels_finding(bundle: Bundle, gpu: GpuFacts) -> Finding:
    fix = commands.rebuilt(bundle.path)
    try:
        built = KernelManifest.read(bundle.path / KERNELS_FOLDER).architectures
    except BundleError as error:
        return _fixable("kernels", State.NOTE, error, fix)
    names = ", ".join(f"sm_{architecture}" for architecture in built) or "no GPU"
    state = State.OK if gpu.architecture in built else State.NOTE
    return Finding(
        about="kernels", state=state, text=f"compiled for {names}",
        fix=None if state is State.OK else fix,
    )  # fmt: skip


def _plans_finding(bundle: Bundle, gpu: GpuFacts, version: str) -> Finding:
    try:
        plans = plans_for(bundle, gpu.architecture, version)
    except BundleError as error:
        fix = commands.plans_built(bundle.path)
        return _fixable("plans", State.NOTE, error, fix)
    built = [min((r.built for r in each), key=_activations_nbytes) for each in plans.values()]
    # Weights stay; activations of the two U-Nets lie side by side, the others' in the same place.
    needed = sum(each.file.nbytes for each in built) + 2 * max(map(_activations_nbytes, built))
    text = f"one of each component for sm_{gpu.architecture}, about {_mib(needed)} MiB on the GPU"
    if needed > gpu.free_nbytes:
        return Finding(about="plans", state=State.PROBLEM, text=f"{text}: more than is free",
                       fix="nvidia-smi")  # fmt: skip
    return Finding(about="plans", state=State.OK, text=text)


def _fixable(about: str, state: State, error: Exception, fix: str) -> Finding:
    """An error as a finding; its last clause is left out where it only repeats the command."""
    text, _, last = str(error).rpartition("; ")
    repeats = bool(text) and fix in last
    return Finding(about=about, state=state, text=text if repeats else str(error), fix=fix)


def _activations_nbytes(built: BuiltPlan) -> int:
    return built.device_memory_nbytes


def _mib(nbytes: int) -> int:
    return nbytes >> 20
