"""Whether a GPU and its driver can load a bundle's cubins; asked before, and by the doctor too."""

from __future__ import annotations

from pathlib import Path

from engines import commands
from engines.bundle.kernel_manifest import KernelManifest
from engines.cuda.driver import OLDEST_FOR_MAJOR, CudaError, driver_version, version_text
from engines.errors import DriverTooOldError, ProviderUnavailableError

# What a driver answers to code that it is not made for: INVALID_IMAGE, NO_BINARY_FOR_GPU,
# INVALID_PTX, UNSUPPORTED_PTX_VERSION.
REFUSALS = frozenset({200, 209, 218, 222})


def check_loadable(
    bundle: Path, manifest: KernelManifest, architecture: int, cuda_version: int
) -> None:
    """Raise where no cubin is for this GPU, or one is of a newer CUDA than the driver's.

    architecture: compute capability times ten. cuda_version: of the driver, such as 12040. Raises
    ProviderUnavailableError, DriverTooOldError.
    """
    if architecture not in manifest.architectures:
        found = ", ".join(f"sm_{number}" for number in manifest.architectures)
        raise ProviderUnavailableError(
            f"this GPU is sm_{architecture}, and the bundle's kernels are for {found or 'none'}; "
            "build them for it with",
            fix=commands.rebuilt(bundle),
        )
    for name, kernel in manifest.kernels.items():
        if kernel.cubins[architecture].cuda_major > cuda_version // 1000:
            raise DriverTooOldError(
                f"{_needs(manifest, name, architecture)}, {_this_driver(cuda_version)}; update "
                "the driver, then check",
                fix="nvidia-smi",
            )


def refused(
    bundle: Path,
    manifest: KernelManifest,
    name: str,
    architecture: int,
    cuda_version: int,
    error: CudaError,
) -> ProviderUnavailableError:
    """A driver's refusal of a kernel's code, which should have suited it, as an error."""
    return ProviderUnavailableError(
        f"the NVIDIA driver does not load kernel {name} for sm_{architecture} ({error}): "
        f"{_needs(manifest, name, architecture)}, {_this_driver(cuda_version)}; update the driver, "
        "or build the kernels again with",
        fix=commands.rebuilt(bundle),
    )


def _needs(manifest: KernelManifest, name: str, architecture: int) -> str:
    cubin = manifest.kernels[name].cubins[architecture]
    oldest = OLDEST_FOR_MAJOR.get(cubin.cuda_major, "newer")
    return (
        f"kernel {name} is built by CUDA {cubin.toolkit} for sm_{architecture} and needs an NVIDIA "
        f"driver for CUDA {cubin.cuda_major} ({oldest} or newer)"
    )


def _this_driver(cuda_version: int) -> str:
    known = driver_version()
    own = "" if known == "unknown" else f"{known}, "
    return f"this one is {own}for CUDA {version_text(cuda_version)}"
