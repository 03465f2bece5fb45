"""A double of the CUDA driver: host memory, streams that wait, capture, Triton's interpreter.

It answers with CUDA's own status where CUDA would, and raises Misuse for what CUDA would let pass
or what would end in undefined behavior. A thread has a current context, without which nearly every
call is answered 201; once work has failed for good (`lose`), nearly every call is answered as that.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engines.bundle.kernel_manifest import KernelManifest
from kernels.variants import VARIANTS, argument_type
from tests.doubles.cuda_memory import Blocks
from tests.doubles.cuda_streams import Capture, Event, Graph, Stream, Work
from tests.kernels.recorder import Recorder

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NOT_READY, ILLEGAL_ADDRESS = 0, 1, 2, 600, 700
INVALID_CONTEXT, CONTEXT_IS_DESTROYED = 201, 709
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_UNJOINED, CAPTURE_ISOLATION = 900, 901, 904, 905

TORCH_TYPES = {
    "float16": torch.float16, "float32": torch.float32, "int32": torch.int32, "uint8": torch.uint8,
}  # fmt: skip


CONTEXT = "context"
# A driver call on the host's clock; a copy's start, and what a copy moves in a millisecond.
HOST_CALL_MS, COPY_MS, COPIED_NBYTES = 0.002, 0.002, 20 << 20
# What needs no current context, and is answered whatever happened.
_WITHOUT_CONTEXT = frozenset(
    "cuInit cuDriverGetVersion cuDeviceGet cuDeviceGetName cuDeviceGetAttribute "
    "cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease cuCtxGetCurrent cuCtxSetCurrent".split()
)
_GIVES_BACK = frozenset(
    "cuMemFree cuMemFreeHost cuStreamDestroy cuEventDestroy cuGraphDestroy cuGraphExecDestroy "
    "cuLibraryUnload".split()
)


class Misuse(AssertionError):
    """Something that must not be done to a GPU."""


@dataclass
class CudaDriver(Recorder):
    """Implements engines.cuda.driver.Driver.

    quiet: set while the host must only launch. side_by_side: see Graph. calls: every function
    called, in order. open: what was created and not destroyed, by kind. pinned_nbytes: of the host
    that can be pinned. lost: the status of work that failed for good. host_ms: the host's clock, on
    which a call takes HOST_CALL_MS and work begins no earlier than it was enqueued; None where only
    the GPU's is of interest. node_ms: how long a node of a graph takes.
    """

    element_type: str = "float32"
    total_nbytes: int = 8 << 30
    pinned_nbytes: int = 8 << 30
    lost: int = SUCCESS
    host_ms: float | None = None
    node_ms: float = 1.0
    architecture: int = 90
    side_by_side: float = 1.0
    quiet: bool = False
    kernels: dict[str, Any] = field(default_factory=dict)
    device: Blocks = field(default_factory=Blocks)
    pinned: Blocks = field(default_factory=Blocks)
    streams: dict[int, Stream] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    open: Counter[str] = field(default_factory=Counter)
    _handles: Any = field(default_factory=lambda: itertools.count(0x100))
    # Address and length of pinned memory that copies are still to read.
    _uploads: list[tuple[int, int]] = field(default_factory=list)
    _thread: threading.local = field(default_factory=threading.local)

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
    )
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DEFAULT=0, CU_EVENT_DISABLE_TIMING=2)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("cu") or name in _WITHOUT_CONTEXT or name == "current":
            return value

        def called(*arguments: Any) -> tuple[Any, ...]:
            if self.host_ms is not None:
                self.host_ms += HOST_CALL_MS
            if refused := self._refused():
                return refused, None, None
            if self.lost and name not in _GIVES_BACK:
                return self.lost, None, None
            answer: tuple[Any, ...] = value(*arguments)
            return (self.lost or answer[0], *answer[1:])

        return called

    @property
    def current(self) -> Any:
        """The calling thread's context."""
        return getattr(self._thread, "context", None)

    def lose(self, status: int = ILLEGAL_ADDRESS) -> None:
        """What work does that fails for good."""
        self.lost = status

    def _refused(self) -> int:
        if self.current is None:
            return INVALID_CONTEXT
        if self.current != CONTEXT:
            raise Misuse(f"work for the GPU in the context of somebody else, {self.current}")
        return 0 if self.open[CONTEXT] else CONTEXT_IS_DESTROYED

    def cuInit(self, Flags: int) -> tuple[Any, ...]:
        return (SUCCESS,)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return SUCCESS, ordinal

    def cuDeviceGetName(self, length: int, dev: Any) -> tuple[Any, ...]:
        return SUCCESS, b"Made-up GPU\0".ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attrib: Any, dev: Any) -> tuple[Any, ...]:
        major, minor = divmod(self.architecture, 10)
        return SUCCESS, {"major": major, "minor": minor}[attrib]

    def cuDevicePrimaryCtxRetain(self, dev: Any) -> tuple[Any, ...]:
        self._opened(CONTEXT)
        return SUCCESS, CONTEXT

    def cuDevicePrimaryCtxRelease(self, dev: Any) -> tuple[Any, ...]:
        return self._closed(CONTEXT)

    def cuCtxGetCurrent(self) -> tuple[Any, ...]:
        return SUCCESS, self.current

    def cuCtxSetCurrent(self, ctx: Any) -> tuple[Any, ...]:
        self._thread.context = ctx
        return (SUCCESS,)

    def cuMemGetInfo(self) -> tuple[Any, ...]:
        return SUCCESS, self.total_nbytes - self.device.nbytes, self.total_nbytes

    def cuMemAlloc(self, bytesize: int) -> tuple[Any, ...]:
        if self._unsafe("cuMemAlloc"):
            return CAPTURE_UNSUPPORTED, 0
        if bytesize <= 0:
            return INVALID_VALUE, 0
        if self.device.nbytes + bytesize > self.total_nbytes:
            return OUT_OF_MEMORY, 0
        self._opened("memory")
        return SUCCESS, self.device.allocate(bytesize)

    def cuMemFree(self, dptr: int) -> tuple[Any, ...]:
        self._unsafe("cuMemFree")
        self._drain()
        self.device.free(dptr)
        return self._closed("memory")

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> tuple[Any, ...]:
        if self._unsafe("cuMemHostAlloc"):
            return CAPTURE_UNSUPPORTED, 0
        if bytesize <= 0:
            return INVALID_VALUE, 0
        if self.pinned.nbytes + bytesize > self.pinned_nbytes:
            return OUT_OF_MEMORY, 0
        self._opened("pinned")
        return SUCCESS, self.pinned.allocate(bytesize)

    def cuMemFreeHost(self, p: int) -> tuple[Any, ...]:
        self._unsafe("cuMemFreeHost")
        self._drain()
        self.pinned.free(p)
        return self._closed("pinned")

    def cuMemcpyHtoDAsync(
        self, dstDevice: int, srcHost: int, ByteCount: int, hStream: int
    ) -> tuple[Any, ...]:
        return self._copy("cuMemcpyHtoDAsync", self.device, dstDevice, self.pinned, srcHost,
                          ByteCount, hStream)  # fmt: skip

    def cuMemcpyDtoHAsync(
        self, dstHost: int, srcDevice: int, ByteCount: int, hStream: int
    ) -> tuple[Any, ...]:
        return self._copy("cuMemcpyDtoHAsync", self.pinned, dstHost, self.device, srcDevice,
                          ByteCount, hStream)  # fmt: skip

    def cuMemcpyDtoDAsync(
        self, dstDevice: int, srcDevice: int, ByteCount: int, hStream: int
    ) -> tuple[Any, ...]:
        return self._copy("cuMemcpyDtoDAsync", self.device, dstDevice, self.device, srcDevice,
                          ByteCount, hStream)  # fmt: skip

    def cuMemsetD8Async(self, dstDevice: int, uc: int, N: int, hStream: int) -> tuple[Any, ...]:
        self._noisy("cuMemsetD8Async")
        self._check(self.device, dstDevice, N)

        def fill() -> None:
            ctypes.memset(dstDevice, uc, N)

        self.put(hStream, fill)
        return (SUCCESS,)

    def cuStreamCreate(self, Flags: int) -> tuple[Any, ...]:
        assert Flags == self.CUstream_flags.CU_STREAM_NON_BLOCKING
        handle = next(self._handles)
        self.streams[handle] = Stream()
        self._opened("stream")
        return SUCCESS, handle

    def cuStreamDestroy(self, hStream: int) -> tuple[Any, ...]:
        del self.streams[hStream]
        return self._closed("stream")

    def cuStreamSynchronize(self, hStream: int) -> tuple[Any, ...]:
        if self._unsafe("cuStreamSynchronize"):
            return (CAPTURE_UNSUPPORTED,)
        stream = self.streams[hStream]
        while stream.queue and not self.lost:
            moved = [each.advance() for each in self.streams.values()]
            if not any(moved):
                raise Misuse("the streams wait for each other")
        if self.host_ms is not None:
            self.host_ms = max(self.host_ms, stream.now_ms)
        return (SUCCESS,)

    def cuStreamWaitEvent(self, hStream: int, hEvent: Event, Flags: int) -> tuple[Any, ...]:
        stream, capture = self.streams[hStream], hEvent.capture
        if capture is not None:
            if stream.capture is None:
                stream.capture, stream.frontier = capture, frozenset()
                capture.streams.append(stream)
            stream.frontier |= hEvent.frontier
            return (SUCCESS,)
        if stream.capture is not None:
            stream.capture.valid = False
            return (CAPTURE_ISOLATION,)
        wanted = hEvent.recorded
        stream.put(lambda: None, blocked=lambda: hEvent.reached < wanted)
        return (SUCCESS,)

    def cuStreamBeginCapture(self, hStream: int, mode: Any) -> tuple[Any, ...]:
        assert mode == self.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._noisy("cuStreamBeginCapture")
        stream = self.streams[hStream]
        stream.capture, stream.frontier = Capture(stream), frozenset()
        stream.capture.streams.append(stream)
        return (SUCCESS,)

    def cuStreamEndCapture(self, hStream: int) -> tuple[Any, ...]:
        self.calls.append("cuStreamEndCapture")
        capture = self.streams[hStream].capture
        assert capture is not None
        unjoined = capture.unjoined()
        for stream in capture.streams:
            stream.capture = None
        if not capture.valid:
            return CAPTURE_INVALIDATED, None
        if unjoined:
            return CAPTURE_UNJOINED, None
        self._opened("graph")
        return SUCCESS, Graph(capture)

    def cuEventCreate(self, Flags: int) -> tuple[Any, ...]:
        self._opened("event")
        return SUCCESS, Event(timed=Flags == self.CUevent_flags.CU_EVENT_DEFAULT)

    def cuEventRecord(self, hEvent: Event, hStream: int) -> tuple[Any, ...]:
        stream = self.streams[hStream]
        if stream.capture is not None:
            hEvent.capture, hEvent.frontier = stream.capture, stream.frontier
            return (SUCCESS,)
        hEvent.capture, hEvent.stream = None, stream
        hEvent.recorded += 1

        def reach() -> None:
            hEvent.reached += 1
            hEvent.at_ms = stream.now_ms

        stream.put(reach)
        return (SUCCESS,)

    def cuEventQuery(self, hEvent: Event) -> tuple[Any, ...]:
        """Each question gives the streams time for one more piece of work."""
        self.calls.append("cuEventQuery")
        if self.host_ms is not None:
            self._drain()
            return (SUCCESS if hEvent.at_ms <= self.host_ms else NOT_READY,)
        if hEvent.reached < hEvent.recorded:
            for stream in self.streams.values():
                stream.advance()
        return (SUCCESS if hEvent.reached == hEvent.recorded else NOT_READY,)

    def cuEventElapsedTime(self, hStart: Event, hEnd: Event) -> tuple[Any, ...]:
        assert hStart.timed
        assert hEnd.timed
        if min(hStart.reached, hEnd.reached) == 0:
            return NOT_READY, 0.0
        return SUCCESS, hEnd.at_ms - hStart.at_ms

    def cuEventDestroy(self, hEvent: Event) -> tuple[Any, ...]:
        hEvent.capture = None  # and with it what was captured
        return self._closed("event")

    def cuGraphInstantiate(self, hGraph: Graph, flags: int) -> tuple[Any, ...]:
        self._opened("executable")
        return SUCCESS, hGraph

    def cuGraphUpload(self, hGraphExec: Graph, hStream: int) -> tuple[Any, ...]:
        return (SUCCESS,)

    def cuGraphLaunch(self, hGraphExec: Graph, hStream: int) -> tuple[Any, ...]:
        self.calls.append("cuGraphLaunch")
        stream = self.streams[hStream]

        def run() -> None:
            hGraphExec.run()
            stream.now_ms += self.node_ms * hGraphExec.duration_ms(self.side_by_side)

        stream.put(self._from_now(stream, run))
        return (SUCCESS,)

    def cuGraphExecDestroy(self, hGraphExec: Graph) -> tuple[Any, ...]:
        return self._closed("executable")

    def cuGraphDestroy(self, hGraph: Graph | None) -> tuple[Any, ...]:
        return self._closed("graph")

    def cuLibraryLoadData(self, code: bytes, *_: Any) -> tuple[Any, ...]:
        self._opened("library")
        return SUCCESS, code

    def cuLibraryUnload(self, library: Any) -> tuple[Any, ...]:
        super().cuLibraryUnload(library)
        return self._closed("library")

    def cuLibraryGetKernel(self, library: bytes, name: bytes) -> tuple[Any, ...]:
        return SUCCESS, library

    def cuLaunchKernel(self, f: bytes, *arguments: Any) -> tuple[Any, ...]:
        answer = super().cuLaunchKernel(f, *arguments)
        _, geometry, values = self.launches[-1]
        name = f.decode().removeprefix("code of ")
        self.calls.append(f"launch {name}")
        variant = next(each for each in VARIANTS if each.name == name)
        visible = [
            self._tensor(argument.name, value) if argument.is_pointer else value
            for argument, value in zip(self.kernels[name].arguments[:-2], values[:-2], strict=True)
        ]
        self.put(geometry[-1], lambda: variant.kernel[geometry[:2]](*visible, **variant.constants))
        return answer

    def put(self, hStream: int, work: Work, *, ms: float = 1.0) -> None:
        """Enqueue, or while capturing record, anything that a stream can do."""
        if self._refused():
            raise Misuse("work is enqueued by a thread in which no context is current")
        stream = self.streams[hStream]

        def timed() -> None:
            work()
            stream.now_ms += ms

        stream.put(self._from_now(stream, timed) if stream.capture is None else work, ms=ms)

    def taken(self, nbytes: int) -> Callable[[], Any]:
        """Device memory that a library takes by itself; what is returned gives it back.

        Libraries do that in whatever thread, and in no context of the caller's.
        """
        status, address, *_ = self.cuMemAlloc(nbytes)
        assert not status, "a library finds no memory"
        return lambda: CudaDriver.cuMemFree(self, address)

    def _from_now(self, stream: Stream, work: Work) -> Work:
        """Work that begins no earlier than the host gave it."""
        given_ms = self.host_ms
        if given_ms is None:
            return work

        def later() -> None:
            stream.now_ms = max(stream.now_ms, given_ms)
            work()

        return later

    def _tensor(self, argument: str, address: int) -> torch.Tensor:
        kind = argument_type(argument).removesuffix("*")
        dtype = TORCH_TYPES[self.element_type if kind == "element" else kind]
        left = self.device.left(address)
        if left is None:
            raise Misuse(f"a kernel's {argument} is at {address:#x}, where nothing is allocated")
        memory = (ctypes.c_uint8 * (left // dtype.itemsize * dtype.itemsize)).from_address(address)
        return torch.frombuffer(memory, dtype=dtype)

    def _copy(
        self, call: str, to: Blocks, target: int, source: Blocks, origin: int, nbytes: int,
        hStream: int,
    ) -> tuple[Any, ...]:  # fmt: skip
        self._noisy(call)
        self._check(to, target, nbytes)
        self._check(source, origin, nbytes)

        capturing = self.streams[hStream].capture is not None
        upload = (origin, nbytes) if source is self.pinned and not capturing else None
        given = ctypes.string_at(origin, nbytes) if upload else b""
        if upload:
            self._uploads.append(upload)
        elif to is self.pinned and not any(
            start < target + nbytes and target < start + length for start, length in self._uploads
        ):
            # Who reads before the copy is done finds nothing.
            ctypes.memset(target, 0xFF, nbytes)

        def move() -> None:
            if upload:
                self._uploads.remove(upload)
            if upload and ctypes.string_at(origin, nbytes) != given:
                raise Misuse(f"{nbytes} pinned bytes were written while a copy still read them")
            ctypes.memmove(target, origin, nbytes)

        self.put(hStream, move, ms=COPY_MS + nbytes / COPIED_NBYTES)
        return (SUCCESS,)

    def _check(self, blocks: Blocks, address: int, nbytes: int) -> None:
        if not blocks.holds(address, nbytes):
            raise Misuse(f"{nbytes} bytes at {address:#x} are not all allocated (or not pinned)")

    def _noisy(self, call: str) -> None:
        self.calls.append(call)
        if self.quiet:
            raise Misuse(f"{call} between the first step and the last")

    def _unsafe(self, call: str) -> bool:
        """Whether CUDA refuses this while a stream of this thread captures."""
        self._noisy(call)
        captures = [stream.capture for stream in self.streams.values() if stream.capture]
        for capture in captures:
            capture.valid = False
        return bool(captures)

    def _drain(self) -> None:
        """Freeing waits for the device."""
        moved = [True]
        while any(moved) and not self.lost:
            moved = [stream.advance() for stream in self.streams.values()]

    def _opened(self, kind: str) -> None:
        self.open[kind] += 1

    def _closed(self, kind: str) -> tuple[Any, ...]:
        self.calls.append(f"close {kind}")
        self.open[kind] -= 1
        if self.open[kind] < 0:
            raise Misuse(f"a {kind} was destroyed twice")
        return (SUCCESS,)


def cuda_driver(folder: Path, **settings: Any) -> CudaDriver:
    """The driver that runs the made-up library in folder."""
    kernels = KernelManifest.read(folder).kernels
    sizes = {
        f"code of {name}".encode(): [argument.nbytes for argument in kernel.arguments]
        for name, kernel in kernels.items()
    }
    return CudaDriver(parameter_nbytes=sizes, kernels=dict(kernels), **settings)
