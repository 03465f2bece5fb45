"""What a bundle has of what this machine needs, and which backend draws it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from engines import commands
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import KernelManifest
from engines.bundle.plan_record import BuiltPlan, LibraryName
from engines.contract import NOISE_PREDICTORS, Component
from engines.cuda.loadable import check_loadable
from engines.engine import Provider
from engines.errors import BundleError, DriverTooOldError, ProviderUnavailableError
from engines.providers import GPU_PROVIDERS, HOST_PROVIDERS, PROVIDERS
from engines.tensorrt.libraries import LIBRARIES, Library
from engines.tensorrt.plans_here import plans_for
from engines.tune.record import kept
from runtime.doctor.finding import Finding, State, of_error
from runtime.doctor.machine import GpuFacts

_MODELS = "ONNX models"


def bundle_findings(
    path: Path, gpu: GpuFacts | None, versions: Mapping[LibraryName, str]
) -> tuple[Bundle | None, list[Finding]]:
    """What a bundle has, and what of it this machine needs."""
    try:
        bundle = Bundle.open(path)
    except BundleError as error:
        return None, [of_error("bundle", State.PROBLEM, error)]
    found = [
        Finding(
            about="bundle", state=State.OK,
            text=f"{path}: {bundle.manifest.precision} at {bundle.manifest.dimensions.native_px} "
            f"px, {len(bundle.manifest.plans)} plans",
        )
    ]  # fmt: skip
    found.append(_models_finding(bundle))
    if gpu is not None:
        found.append(_kernels_finding(bundle, gpu))
        for name, version in versions.items():
            found.append(_plans_finding(bundle, LIBRARIES[name], gpu, version))
    return bundle, found


def provider_finding(bundle: Bundle, found: list[Finding]) -> Finding:
    """Which backend draws as things stand: the first that misses nothing, or a CPU's fastest."""
    fine = {finding.about for finding in found if finding.state is State.OK}
    for provider in Provider:
        if _needs(provider) <= fine and _has_library(provider):
            by = provider.value
            if provider in HOST_PROVIDERS and (record := kept(bundle)) is not None:
                fastest = record.fastest()
                by = by if fastest is None else f"{fastest.settings.in_words()}, the fastest here"
            return Finding(about="provider", state=State.OK, text=f"pictures are drawn on {by}")
    models = next(finding for finding in found if finding.about == _MODELS)
    return Finding(
        about="provider", state=State.PROBLEM, text="nothing here can draw",
        fix=models.fix or commands.installed("cpu"),
    )  # fmt: skip


def _needs(provider: Provider) -> set[str]:
    """What must be found to be fine for a provider."""
    if provider in HOST_PROVIDERS:
        return {_MODELS}
    if GPU_PROVIDERS[provider].from_plans:
        return {"GPU", "kernels", plans_of(LibraryName(provider))}
    # Where there is a GPU, this is about ONNX Runtime on it.
    return {"GPU", "kernels", "ONNX Runtime", _MODELS}


def plans_of(library: LibraryName) -> str:
    """What the finding about a library's plans is about."""
    return "plans" if library is LibraryName.TENSORRT else f"{library} plans"


def _has_library(provider: Provider) -> bool:
    try:
        PROVIDERS[provider].library()
    except ProviderUnavailableError:
        return False
    return True


def _models_finding(bundle: Bundle) -> Finding:
    """What the rest of the bundle's own can be drawn from besides its plans."""
    try:
        bundle.require_models("drawing without plans")
    except ProviderUnavailableError as error:
        return of_error(_MODELS, State.NOTE, error)
    return Finding(about=_MODELS, state=State.OK, text="there, for CPUs and for further plans")


def _kernels_finding(bundle: Bundle, gpu: GpuFacts) -> Finding:
    try:
        manifest = KernelManifest.read(bundle.path / KERNELS_FOLDER)
        check_loadable(bundle.path, manifest, gpu.architecture, gpu.cuda_version)
    except DriverTooOldError as error:
        return of_error("kernels", State.PROBLEM, error)
    except (BundleError, ProviderUnavailableError) as error:
        return of_error("kernels", State.NOTE, error)
    names = ", ".join(f"sm_{architecture}" for architecture in manifest.architectures)
    return Finding(about="kernels", state=State.OK, text=f"compiled for {names}")


def _plans_finding(bundle: Bundle, library: Library, gpu: GpuFacts, version: str) -> Finding:
    about = plans_of(library.name)
    try:
        plans = plans_for(bundle, library, gpu.architecture, version)
    except BundleError as error:
        return of_error(about, State.NOTE, error)
    built = {
        component: min((record.built for record in records), key=_activations_nbytes)
        for component, records in plans.items()
    }
    # Weights stay; activations of the two U-Nets lie side by side, the others' in the same place.
    needed = _weights_nbytes(built.values()) + 2 * max(map(_activations_nbytes, built.values()))
    text = f"one of each component for sm_{gpu.architecture}, about {needed >> 20} MiB on the GPU"
    if needed > gpu.free_nbytes:
        in_turns = _in_turns_nbytes(built)
        text += f", in low memory {in_turns >> 20}: more than is free"
        if in_turns > gpu.free_nbytes:
            return Finding(about=about, state=State.PROBLEM, text=text, fix="nvidia-smi")
        text += " but in low memory, which --low-memory and open(low_memory=True) ask for"
        return Finding(about=about, state=State.NOTE, text=text)
    if any(each.parity is None for each in built.values()):
        text += (
            "; never compared with the CPU"
            if bundle.manifest.plans_only
            else "; compared with the CPU where they are first opened"
        )
    return Finding(about=about, state=State.OK, text=text)


def _in_turns_nbytes(built: Mapping[Component, BuiltPlan]) -> int:
    """Of both U-Nets at once, or of another component by itself, in one activation memory."""
    others = [[built[each]] for each in built if each not in NOISE_PREDICTORS]
    together = [[built[each] for each in NOISE_PREDICTORS], *others]
    return max(_weights_nbytes(each) + max(map(_activations_nbytes, each)) for each in together)


def _weights_nbytes(built: Iterable[BuiltPlan]) -> int:
    return sum(each.resident_nbytes for each in built)


def _activations_nbytes(built: BuiltPlan) -> int:
    return built.device_memory_nbytes
