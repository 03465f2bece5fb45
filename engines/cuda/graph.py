"""Everything about CUDA graphs: capture once, replay with one launch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from engines.cuda.driver import CudaError, checked, released
from engines.cuda.gpu import Stream
from engines.errors import DeviceMemoryError


@dataclass(frozen=True)
class Graph:
    """A captured sequence of work; its addresses and shapes are those of the capture."""

    stream: Stream
    executable: Any
    what: str

    def launch(self) -> None:
        """Put the whole sequence on the stream it was captured on and return."""
        answer = self.stream.driver.cuGraphLaunch(self.executable, self.stream.handle)
        checked(answer, "cuGraphLaunch", self.what)


def captured(
    stream: Stream, stack: ExitStack, enqueue: Callable[[], None], what: str = "a graph"
) -> Graph:
    """Record what enqueue puts on a stream, and on streams it forks and joins, without running it.

    what: its name in errors. The graph is destroyed when the stack closes. Raises CudaError,
    DeviceMemoryError, and whatever enqueue raises; the capture is ended either way. Only the
    calling thread is barred from unsafe calls meanwhile.
    """
    driver = stream.driver
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    checked(driver.cuStreamBeginCapture(stream.handle, mode), "cuStreamBeginCapture", what)
    try:
        enqueue()
    except BaseException:
        _abandon(stream, what)
        raise
    recorded = checked(driver.cuStreamEndCapture(stream.handle), "cuStreamEndCapture", what)
    try:
        executable = checked(driver.cuGraphInstantiate(recorded, 0), "cuGraphInstantiate", what)
    except CudaError as error:
        if not error.is_out_of_memory:
            raise
        raise DeviceMemoryError(
            f"{what} does not fit the GPU's memory ({error}); ask for fewer or smaller images, or "
            "end what else uses it, which is listed by",
            fix="nvidia-smi",
        ) from error
    finally:
        released(driver.cuGraphDestroy(recorded), "cuGraphDestroy", what)
    call = "cuGraphExecDestroy"
    stack.callback(lambda: released(driver.cuGraphExecDestroy(executable), call, what))
    checked(driver.cuGraphUpload(executable, stream.handle), "cuGraphUpload", what)
    return Graph(stream, executable, what)


def _abandon(stream: Stream, what: str) -> None:
    """End a capture whose recording failed; the failure itself is already on its way."""
    try:
        answer = stream.driver.cuStreamEndCapture(stream.handle)
        recorded = checked(answer, "cuStreamEndCapture", what)
        checked(stream.driver.cuGraphDestroy(recorded), "cuGraphDestroy", what)
    except CudaError:
        pass
