"""An open GPU: memory, streams and events, each closed with what it was opened in."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.driver import CudaError, Driver, architecture_through, checked, version_text
from engines.errors import DeviceMemoryError

_NOT_READY = 600  # CUDA_ERROR_NOT_READY: the event is still to come


@dataclass(frozen=True)
class Memory:
    """A block of memory, on the device or pinned on the host."""

    address: int
    nbytes: int

    def array(self, offset: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """Part of a pinned block as an array; of a device block, never."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if offset < 0 or offset + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {offset} are not within {self.nbytes}")
        part = (ctypes.c_uint8 * nbytes).from_address(self.address + offset)
        return np.ctypeslib.as_array(part).view(dtype).reshape(shape)


@dataclass(frozen=True)
class Event:
    """A point in a stream's work."""

    driver: Driver
    handle: Any

    def done(self) -> bool:
        """Whether the stream has come past it; waits for nothing."""
        try:
            checked(self.driver.cuEventQuery(self.handle))
        except CudaError as error:
            if error.status == _NOT_READY:
                return False
            raise
        return True

    def ms_since(self, start: Event) -> float:
        """Milliseconds of the GPU's own clock between two timed events that are done."""
        return float(checked(self.driver.cuEventElapsedTime(start.handle, self.handle)))


@dataclass(frozen=True)
class Stream:
    """Work in order. `handle` is what other libraries take."""

    driver: Driver
    handle: int

    def synchronize(self) -> None:
        checked(self.driver.cuStreamSynchronize(self.handle))

    def record(self, event: Event) -> None:
        checked(self.driver.cuEventRecord(event.handle, self.handle))

    def wait(self, event: Event) -> None:
        """Let work to come wait for an event; the host does not."""
        checked(self.driver.cuStreamWaitEvent(self.handle, event.handle, 0))

    def upload(self, device_address: int, pinned_address: int, nbytes: int) -> None:
        checked(self.driver.cuMemcpyHtoDAsync(device_address, pinned_address, nbytes, self.handle))

    def download(self, pinned_address: int, device_address: int, nbytes: int) -> None:
        checked(self.driver.cuMemcpyDtoHAsync(pinned_address, device_address, nbytes, self.handle))

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Within the device."""
        checked(self.driver.cuMemcpyDtoDAsync(to_address, from_address, nbytes, self.handle))

    def fill_with_zeros(self, device_address: int, nbytes: int) -> None:
        checked(self.driver.cuMemsetD8Async(device_address, 0, nbytes, self.handle))


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first GPU, with its primary context, which all libraries of a process share.

    architecture: compute capability times ten, such as 90. cuda_version: of the driver, such as
    13000.
    """

    driver: Driver
    context: Any
    name: str
    architecture: int
    cuda_version: int

    def make_current(self) -> None:
        """Let the calling thread use this GPU; every thread must say so once."""
        checked(self.driver.cuCtxSetCurrent(self.context))

    def free_nbytes(self) -> tuple[int, int]:
        """Free and total memory."""
        free, total = checked(self.driver.cuMemGetInfo())
        return int(free), int(total)

    def stream(self, stack: ExitStack) -> Stream:
        """A stream that does not wait for the default one; destroyed when the stack closes."""
        flags = int(self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        handle = int(checked(self.driver.cuStreamCreate(flags)))
        stack.callback(lambda: checked(self.driver.cuStreamDestroy(handle)))
        return Stream(self.driver, handle)

    def event(self, stack: ExitStack, *, timed: bool = False) -> Event:
        flags = self.driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timed else flags.CU_EVENT_DISABLE_TIMING
        handle = checked(self.driver.cuEventCreate(int(flag)))
        stack.callback(lambda: checked(self.driver.cuEventDestroy(handle)))
        return Event(self.driver, handle)

    def memory(self, stack: ExitStack, nbytes: int, what: str) -> Memory:
        """Device memory, aligned to 256 bytes; raises DeviceMemoryError saying what it was for."""
        try:
            address = int(checked(self.driver.cuMemAlloc(nbytes)))
        except CudaError as error:
            if not error.is_out_of_memory:
                raise
            free, total = self.free_nbytes()
            raise DeviceMemoryError(
                f"{self.name} has {_mib(free)} of {_mib(total)} MiB free, {what} takes "
                f"{_mib(nbytes)} MiB; ask for fewer or smaller images, or end what else uses it, "
                "which is listed by",
                fix="nvidia-smi",
            ) from error
        stack.callback(lambda: checked(self.driver.cuMemFree(address)))
        return Memory(address, nbytes)

    def pinned(self, stack: ExitStack, nbytes: int) -> Memory:
        """Host memory that copies to and from the device need not wait for."""
        address = int(checked(self.driver.cuMemHostAlloc(nbytes, 0)))
        stack.callback(lambda: checked(self.driver.cuMemFreeHost(address)))
        return Memory(address, nbytes)

    def describe(self) -> str:
        return f"{self.name} (sm_{self.architecture}, CUDA {version_text(self.cuda_version)})"


@contextmanager
def opened_gpu(driver: Driver) -> Iterator[Gpu]:
    """Open the first GPU; raises CudaError."""
    device = checked(driver.cuDeviceGet(0))
    name = checked(driver.cuDeviceGetName(256, device))
    context = checked(driver.cuDevicePrimaryCtxRetain(device))
    try:
        gpu = Gpu(
            driver=driver,
            context=context,
            name=bytes(name).split(b"\0")[0].decode(errors="replace"),
            architecture=architecture_through(driver, device),
            cuda_version=int(checked(driver.cuDriverGetVersion())),
        )
        gpu.make_current()
        yield gpu
    finally:
        checked(driver.cuDevicePrimaryCtxRelease(device))


def _mib(nbytes: int) -> int:
    return -(-nbytes // 2**20)
