"""The CUDA driver: the one place that imports cuda-bindings and looks at its statuses."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from engines.errors import FaceDiffuserError, ProviderUnavailableError


class CudaError(FaceDiffuserError):
    """A call of the CUDA driver failed; names the status and what it means."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Driver(Protocol):
    """The functions of `cuda.bindings.driver` used here; each returns (status, *values)."""

    def cuLibraryLoadData(
        self,
        code: bytes,
        jitOptions: None,
        jitOptionsValues: None,
        numJitOptions: int,
        libraryOptions: None,
        libraryOptionValues: None,
        numLibraryOptions: int,
        /,
    ) -> tuple[Any, ...]: ...
    def cuLibraryGetKernel(self, library: Any, name: bytes, /) -> tuple[Any, ...]: ...
    def cuLibraryUnload(self, library: Any, /) -> tuple[Any, ...]: ...
    def cuKernelGetFunction(self, kernel: Any, /) -> tuple[Any, ...]: ...
    def cuKernelGetParamInfo(self, kernel: Any, paramIndex: int, /) -> tuple[Any, ...]: ...
    def cuLaunchKernel(
        self,
        f: Any,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: int,
        kernelParams: int,
        extra: int,
        /,
    ) -> tuple[Any, ...]: ...


def driver() -> Driver:
    """Import and initialize the CUDA driver.

    Raises ProviderUnavailableError where cuda-bindings, the driver or a GPU is missing.
    """
    try:
        bindings = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise ProviderUnavailableError(
            "the GPU needs cuda-bindings, which is not installed; "
            "install it with: pip install 'face-diffuser[tensorrt]'"
        ) from error
    try:
        checked(bindings.cuInit(0))
    # The bindings raise RuntimeError where they find no libcuda.
    except (RuntimeError, CudaError) as error:
        raise ProviderUnavailableError(
            f"cuda-bindings found no working NVIDIA driver and GPU ({error}); check: nvidia-smi"
        ) from error
    return cast(Driver, bindings)


def checked(result: tuple[Any, ...]) -> Any:
    """Return what a driver call returned: nothing, one value or a tuple; raises CudaError."""
    status, *values = result
    if int(status):
        name = getattr(status, "name", str(status))
        raise CudaError(f"the CUDA driver answered {name} ({int(status)})", int(status))
    return values[0] if len(values) == 1 else tuple(values) or None


def architecture_of(device: int = 0) -> int:
    """A GPU's compute capability times ten, such as 90; raises ProviderUnavailableError."""
    bindings = cast(Any, driver())
    handle = checked(bindings.cuDeviceGet(device))
    attributes = bindings.CUdevice_attribute
    major, minor = (
        checked(bindings.cuDeviceGetAttribute(attribute, handle))
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return int(major) * 10 + int(minor)
