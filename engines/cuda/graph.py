"""Everything about CUDA graphs: capture once, replay with one launch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from engines.cuda.driver import CudaError, checked
from engines.cuda.gpu import Stream


@dataclass(frozen=True)
class Graph:
    """A captured sequence of work; its addresses and shapes are those of the capture."""

    stream: Stream
    executable: Any

    def launch(self) -> None:
        """Put the whole sequence on the stream it was captured on and return."""
        checked(self.stream.driver.cuGraphLaunch(self.executable, self.stream.handle))


def captured(stream: Stream, stack: ExitStack, enqueue: Callable[[], None]) -> Graph:
    """Record what enqueue puts on a stream, and on streams it forks and joins, without running it.

    The graph is destroyed when the stack closes. Raises CudaError, and whatever enqueue raises; the
    capture is ended either way. Only the calling thread is barred from unsafe calls meanwhile.
    """
    driver = stream.driver
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    checked(driver.cuStreamBeginCapture(stream.handle, mode))
    try:
        enqueue()
    except BaseException:
        _abandon(stream)
        raise
    recorded = checked(driver.cuStreamEndCapture(stream.handle))
    try:
        executable = checked(driver.cuGraphInstantiate(recorded, 0))
    finally:
        checked(driver.cuGraphDestroy(recorded))
    stack.callback(lambda: checked(driver.cuGraphExecDestroy(executable)))
    checked(driver.cuGraphUpload(executable, stream.handle))
    return Graph(stream, executable)


def _abandon(stream: Stream) -> None:
    """End a capture whose recording failed; the failure itself is already on its way."""
    try:
        recorded = checked(stream.driver.cuStreamEndCapture(stream.handle))
        checked(stream.driver.cuGraphDestroy(recorded))
    except CudaError:
        pass
