"""The CUDA driver: the one place that imports cuda-bindings and looks at its statuses."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from engines import commands
from engines.errors import (
    DriverTooOldError,
    FaceDiffuserError,
    NotInstalledError,
    ProviderUnavailableError,
)

Answer = tuple[Any, ...]  # status, then what the function returns

# cuLibraryLoadData appeared in CUDA 12.0.
OLDEST_DRIVER = 12000
# The first NVIDIA driver that runs what a CUDA toolkit of this major version built, whatever the
# minor (NVIDIA, "CUDA Compatibility", minor version compatibility).
OLDEST_FOR_MAJOR = {12: "525", 13: "580"}

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_OUT_OF_MEMORY, _NO_DEVICE = 2, 100
# Faults of work under way, after which every call of the process answers the same: memory that
# cannot be corrected, a wild or misaligned address, a time limit, a failed assertion, a broken
# instruction, stack, address space or program counter, and a launch that failed without a name.
_LOST = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719})


class CudaError(FaceDiffuserError):
    """A call of the CUDA driver failed; names the call, what it was for, and the status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the GPU's memory was used up."""
        return self.status == _OUT_OF_MEMORY

    @property
    def is_lost(self) -> bool:
        """Whether the GPU does nothing more for this process, whatever it is asked for."""
        return self.status in _LOST


class KernelDriver(Protocol):
    """What of `cuda.bindings.driver` loads and launches kernels.

    Each function returns (status, *values).
    """

    def cuDriverGetVersion(self) -> Answer: ...
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
    ) -> Answer: ...
    def cuLibraryGetKernel(self, library: Any, name: bytes, /) -> Answer: ...
    def cuLibraryUnload(self, library: Any, /) -> Answer: ...
    def cuKernelGetFunction(self, kernel: Any, /) -> Answer: ...
    def cuKernelGetParamInfo(self, kernel: Any, paramIndex: int, /) -> Answer: ...
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
    ) -> Answer: ...


class Driver(KernelDriver, Protocol):
    """All of `cuda.bindings.driver` that is used here.

    Streams and device memory are passed as integers, events and graphs as the objects they came as.
    """

    @property
    def CUdevice_attribute(self) -> Any: ...
    @property
    def CUstreamCaptureMode(self) -> Any: ...
    @property
    def CUstream_flags(self) -> Any: ...
    @property
    def CUevent_flags(self) -> Any: ...

    def cuInit(self, Flags: int, /) -> Answer: ...
    def cuDeviceGet(self, ordinal: int, /) -> Answer: ...
    def cuDeviceGetName(self, length: int, dev: Any, /) -> Answer: ...
    def cuDeviceGetAttribute(self, attrib: Any, dev: Any, /) -> Answer: ...
    def cuDevicePrimaryCtxRetain(self, dev: Any, /) -> Answer: ...
    def cuDevicePrimaryCtxRelease(self, dev: Any, /) -> Answer: ...
    def cuCtxGetCurrent(self) -> Answer: ...
    def cuCtxSetCurrent(self, ctx: Any, /) -> Answer: ...

    def cuMemGetInfo(self) -> Answer: ...
    def cuMemAlloc(self, bytesize: int, /) -> Answer: ...
    def cuMemFree(self, dptr: int, /) -> Answer: ...
    def cuMemHostAlloc(self, bytesize: int, Flags: int, /) -> Answer: ...
    def cuMemFreeHost(self, p: int, /) -> Answer: ...
    def cuMemcpyHtoDAsync(
        self, dstDevice: int, srcHost: int, ByteCount: int, hStream: int, /
    ) -> Answer: ...
    def cuMemcpyDtoHAsync(
        self, dstHost: int, srcDevice: int, ByteCount: int, hStream: int, /
    ) -> Answer: ...
    def cuMemcpyDtoDAsync(
        self, dstDevice: int, srcDevice: int, ByteCount: int, hStream: int, /
    ) -> Answer: ...
    def cuMemsetD8Async(self, dstDevice: int, uc: int, N: int, hStream: int, /) -> Answer: ...

    def cuStreamCreate(self, Flags: int, /) -> Answer: ...
    def cuStreamDestroy(self, hStream: int, /) -> Answer: ...
    def cuStreamSynchronize(self, hStream: int, /) -> Answer: ...
    def cuStreamWaitEvent(self, hStream: int, hEvent: Any, Flags: int, /) -> Answer: ...
    def cuStreamBeginCapture(self, hStream: int, mode: Any, /) -> Answer: ...
    def cuStreamEndCapture(self, hStream: int, /) -> Answer: ...
    def cuEventCreate(self, Flags: int, /) -> Answer: ...
    def cuEventRecord(self, hEvent: Any, hStream: int, /) -> Answer: ...
    def cuEventQuery(self, hEvent: Any, /) -> Answer: ...
    def cuEventElapsedTime(self, hStart: Any, hEnd: Any, /) -> Answer: ...
    def cuEventDestroy(self, hEvent: Any, /) -> Answer: ...

    def cuGraphInstantiate(self, hGraph: Any, flags: int, /) -> Answer: ...
    def cuGraphUpload(self, hGraphExec: Any, hStream: int, /) -> Answer: ...
    def cuGraphLaunch(self, hGraphExec: Any, hStream: int, /) -> Answer: ...
    def cuGraphExecDestroy(self, hGraphExec: Any, /) -> Answer: ...
    def cuGraphDestroy(self, hGraph: Any, /) -> Answer: ...


def driver(extra: str = "tensorrt") -> Driver:
    """Import and initialize the CUDA driver.

    extra: what of this toolkit installs the bindings together with what the caller needs besides.
    Raises NotInstalledError without them, ProviderUnavailableError where the driver or a GPU is
    missing, DriverTooOldError.
    """
    try:
        bindings = cast(Driver, import_module("cuda.bindings.driver"))
    except ImportError as error:
        raise NotInstalledError(
            "the GPU needs cuda-bindings, which is not installed; install it with",
            fix=commands.installed(extra),
        ) from error
    try:
        checked(bindings.cuInit(0), "cuInit")
        version = int(checked(bindings.cuDriverGetVersion(), "cuDriverGetVersion"))
    # The bindings raise RuntimeError where they find no libcuda, or an older one than they need.
    except (RuntimeError, CudaError) as error:
        missing = getattr(error, "status", None) == _NO_DEVICE
        what = "no NVIDIA GPU" if missing else "no working NVIDIA driver and GPU"
        raise ProviderUnavailableError(
            f"cuda-bindings found {what} ({error}); check", fix="nvidia-smi"
        ) from error
    if version < OLDEST_DRIVER:
        raise DriverTooOldError(
            f"the NVIDIA driver is for CUDA {version_text(version)}, this toolkit needs one for "
            f"CUDA {version_text(OLDEST_DRIVER)} or newer; update it, then check",
            fix="nvidia-smi",
        )
    return bindings


def checked(result: Answer, call: str, of: str = "") -> Any:
    """Return what a driver call returned: nothing, one value or a tuple; raises CudaError.

    call: its name. of: the object that it was for, such as "the main stream".
    """
    status, *values = result
    if int(status):
        name = getattr(status, "name", str(status))
        whose = f"{call} of {of}" if of else call
        lost = (
            ": work under way failed, and the GPU does no more for this process; start it again"
            if int(status) in _LOST
            else ""
        )
        raise CudaError(
            f"{whose}: the CUDA driver answered {name} ({int(status)}){lost}", int(status)
        )
    return values[0] if len(values) == 1 else tuple(values) or None


def released(result: Answer, call: str, of: str = "") -> None:
    """The same of a call that gives something back.

    A GPU that is lost has given everything back, and whoever waited for it was told: that is no
    error once more.
    """
    try:
        checked(result, call, of)
    except CudaError as error:
        if not error.is_lost:
            raise


def version_text(version: int) -> str:
    """CUDA's 12040 -> 12.4."""
    return f"{version // 1000}.{version % 1000 // 10}"


def driver_version() -> str:
    """The NVIDIA driver's own version, such as 590.44.01; "unknown" where it is not told."""
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return match.group(1) if match else "unknown"


def architecture_of(device: int = 0) -> int:
    """A GPU's compute capability times ten, such as 90; raises ProviderUnavailableError."""
    bindings = driver()
    handle = checked(bindings.cuDeviceGet(device), "cuDeviceGet", f"GPU {device}")
    return architecture_through(bindings, handle)


def architecture_through(bindings: Driver, device: Any) -> int:
    """The same, of a device's handle."""
    attributes = bindings.CUdevice_attribute
    major, minor = (
        checked(bindings.cuDeviceGetAttribute(attribute, device), "cuDeviceGetAttribute", "the GPU")
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return int(major) * 10 + int(minor)
