"""An open GPU: memory, streams and events, each closed with what it was opened in."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.driver import (
    CudaError,
    Driver,
    architecture_through,
    checked,
    released,
    version_text,
)
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
    """A point in a stream's work. name: in errors."""

    driver: Driver
    handle: Any
    name: str = "an event"

    def done(self) -> bool:
        """Whether the stream has come past it; waits for nothing."""
        try:
            checked(self.driver.cuEventQuery(self.handle), "cuEventQuery", self.name)
        except CudaError as error:
            if error.status == _NOT_READY:
                return False
            raise
        return True

    def ms_since(self, start: Event) -> float:
        """Milliseconds of the GPU's own clock between two timed events that are done."""
        answer = self.driver.cuEventElapsedTime(start.handle, self.handle)
        return float(checked(answer, "cuEventElapsedTime", self.name))


@dataclass(frozen=True)
class Stream:
    """Work in order. `handle` is what other libraries take; `name` is its own in errors."""

    driver: Driver
    handle: int
    name: str = "a stream"

    def synchronize(self) -> None:
        checked(self.driver.cuStreamSynchronize(self.handle), "cuStreamSynchronize", self.name)

    def drain(self) -> None:
        """Wait before what its work uses is given back; a GPU that is lost uses nothing."""
        released(self.driver.cuStreamSynchronize(self.handle), "cuStreamSynchronize", self.name)

    def record(self, event: Event) -> None:
        answer = self.driver.cuEventRecord(event.handle, self.handle)
        checked(answer, "cuEventRecord", f"{event.name} on {self.name}")

    def wait(self, event: Event) -> None:
        """Let work to come wait for an event; the host does not."""
        answer = self.driver.cuStreamWaitEvent(self.handle, event.handle, 0)
        checked(answer, "cuStreamWaitEvent", f"{event.name} on {self.name}")

    def upload(self, device_address: int, pinned_address: int, nbytes: int) -> None:
        answer = self.driver.cuMemcpyHtoDAsync(device_address, pinned_address, nbytes, self.handle)
        checked(answer, "cuMemcpyHtoDAsync", self._of(nbytes, device_address))

    def download(self, pinned_address: int, device_address: int, nbytes: int) -> None:
        answer = self.driver.cuMemcpyDtoHAsync(pinned_address, device_address, nbytes, self.handle)
        checked(answer, "cuMemcpyDtoHAsync", self._of(nbytes, device_address))

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Within the device."""
        answer = self.driver.cuMemcpyDtoDAsync(to_address, from_address, nbytes, self.handle)
        checked(answer, "cuMemcpyDtoDAsync", self._of(nbytes, to_address))

    def fill_with_zeros(self, device_address: int, nbytes: int) -> None:
        answer = self.driver.cuMemsetD8Async(device_address, 0, nbytes, self.handle)
        checked(answer, "cuMemsetD8Async", self._of(nbytes, device_address))

    def _of(self, nbytes: int, device_address: int) -> str:
        return f"{nbytes} bytes at {device_address:#x} on {self.name}"


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

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let the calling thread use this GPU, then put back what it used before."""
        before = checked(self.driver.cuCtxGetCurrent(), "cuCtxGetCurrent")
        checked(self.driver.cuCtxSetCurrent(self.context), "cuCtxSetCurrent", self.name)
        try:
            yield
        finally:
            released(self.driver.cuCtxSetCurrent(before), "cuCtxSetCurrent", "the caller's")

    def free_nbytes(self) -> tuple[int, int]:
        """Free and total memory."""
        free, total = checked(self.driver.cuMemGetInfo(), "cuMemGetInfo", self.name)
        return int(free), int(total)

    def stream(self, stack: ExitStack, name: str = "a stream") -> Stream:
        """A stream that does not wait for the default one; destroyed when the stack closes."""
        flags, call = int(self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING), "cuStreamDestroy"
        handle = int(checked(self.driver.cuStreamCreate(flags), "cuStreamCreate", name))
        stack.callback(lambda: released(self.driver.cuStreamDestroy(handle), call, name))
        return Stream(self.driver, handle, name)

    def event(self, stack: ExitStack, name: str = "an event", *, timed: bool = False) -> Event:
        flags, call = self.driver.CUevent_flags, "cuEventDestroy"
        flag = flags.CU_EVENT_DEFAULT if timed else flags.CU_EVENT_DISABLE_TIMING
        handle = checked(self.driver.cuEventCreate(int(flag)), "cuEventCreate", name)
        stack.callback(lambda: released(self.driver.cuEventDestroy(handle), call, name))
        return Event(self.driver, handle, name)

    def memory(self, stack: ExitStack, nbytes: int, what: str) -> Memory:
        """Device memory, aligned to 256 bytes; raises DeviceMemoryError saying what it was for."""
        try:
            address = int(checked(self.driver.cuMemAlloc(nbytes), "cuMemAlloc", what))
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
        stack.callback(lambda: released(self.driver.cuMemFree(address), "cuMemFree", what))
        return Memory(address, nbytes)

    def pinned(self, stack: ExitStack, nbytes: int, what: str) -> Memory:
        """Host memory that copies to and from the device need not wait for.

        Raises DeviceMemoryError, saying what it was for, where the system pins no more.
        """
        try:
            address = int(checked(self.driver.cuMemHostAlloc(nbytes, 0), "cuMemHostAlloc", what))
        except CudaError as error:
            if not error.is_out_of_memory:
                raise
            raise DeviceMemoryError(
                f"this machine pins no {_mib(nbytes)} MiB more of its memory for {what}; ask for "
                "fewer or smaller images, or end what else uses it; what is free is told by",
                fix="free -m",
            ) from error
        stack.callback(lambda: released(self.driver.cuMemFreeHost(address), "cuMemFreeHost", what))
        return Memory(address, nbytes)

    def describe(self) -> str:
        return f"{self.name} (sm_{self.architecture}, CUDA {version_text(self.cuda_version)})"


@contextmanager
def opened_gpu(driver: Driver) -> Iterator[Gpu]:
    """Open the first GPU and use it in this thread, which has its own back after it.

    Raises CudaError.
    """
    with retained_gpu(driver) as gpu, gpu.current():
        yield gpu


@contextmanager
def retained_gpu(driver: Driver) -> Iterator[Gpu]:
    """Open the first GPU for threads that make it current when they use it; raises CudaError."""
    device = checked(driver.cuDeviceGet(0), "cuDeviceGet", "GPU 0")
    name = checked(driver.cuDeviceGetName(256, device), "cuDeviceGetName", "GPU 0")
    called = bytes(name).split(b"\0")[0].decode(errors="replace")
    context = checked(driver.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain", called)
    try:
        yield Gpu(
            driver=driver,
            context=context,
            name=called,
            architecture=architecture_through(driver, device),
            cuda_version=int(checked(driver.cuDriverGetVersion(), "cuDriverGetVersion")),
        )
    finally:
        answer = driver.cuDevicePrimaryCtxRelease(device)
        released(answer, "cuDevicePrimaryCtxRelease", called)


def _mib(nbytes: int) -> int:
    return -(-nbytes // 2**20)
