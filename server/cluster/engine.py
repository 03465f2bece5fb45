"""The engines of a Ray cluster, behind the Protocol that jobs know.

The server's process admits, queues and keeps what it always does, and is a driver of the cluster:
jobs, identities and limits stay in one place, whatever becomes of a replica. A replica that dies in
the middle of a picture costs its time: the same request, whose seed was drawn at admission, is
drawn again by another. That is bounded only because a request may be what its engines die of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException

from engines.tune.settings import CallTime
from runtime import CancelledError, CancelToken, Identity, Request
from runtime.inputs.check import RequestCheck
from runtime.inputs.together import companions
from server.cluster.replica import Raised, Sent
from server.config import ServerConfig
from server.jobs.engine import EngineLostError, OnResult, OnStep, PhotoDecoder
from server.logs import tell

# How soon a job's cancelling is noticed between two steps.
_POLL_S = 0.02
# Before an engine is asked again after a loss, of which Ray may not have heard as yet; each time
# twice as long, up to the second one.
_PAUSE_S, _MOST_PAUSE_S = 0.1, 1.0
# What Ray raises of a replica that has ended, or that it takes away.
_LOST = (RayActorError, RayServeException, EngineLostError)


class RayEngine:
    """Replicas of a deployment, each of which makes one call at a time."""

    def __init__(
        self,
        handle: Any,
        check: RequestCheck,
        config: ServerConfig,
        call_time: CallTime | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        """handle: the deployment's, as `serve.run` gives it. call_time: of a replica's engine.

        stop: takes the replicas down.
        """
        self._handle, self._stop = handle, stop
        self._check = check
        self._call_time = call_time
        self._engines, self._redraws = config.engines, config.redraws
        self._photos = PhotoDecoder(config.max_photo_pixels)

    @property
    def engines(self) -> int:
        return self._engines

    @property
    def native_px(self) -> int:
        return self._check.native_px

    def check(self, request: Request) -> None:
        self._check.check(request)

    async def check_photo(self, photo: bytes) -> None:
        await self._photos.decoded(photo)

    async def encode(self, photo: bytes) -> Identity:
        pixels = await self._photos.decoded(photo)
        losses = _Losses(self._redraws)
        while True:
            try:
                found: Identity | Raised = await self._handle.encode.remote(pixels)
            except _LOST as error:
                await losses.after(error, begun=True)
                continue
            if isinstance(found, Raised):
                raise found.error
            return found

    def companions(self, requests: Sequence[Request]) -> Sequence[int]:
        return companions(requests, self._call_time, self.native_px)

    async def draw(
        self,
        requests: Sequence[Request],
        *,
        cancel: CancelToken,
        on_step: OnStep,
        on_result: OnResult,
        previews: Sequence[bool],
    ) -> None:
        losses = _Losses(self._redraws)
        while not cancel.is_set():
            begun = False
            try:
                async for each in self._sent(requests, previews, cancel):
                    begun = True
                    match each:
                        case Raised():
                            raise each.error
                        case list():
                            for at, result in enumerate(each):
                                on_result(at, result)
                            return
                        case (at, step):
                            on_step(at, step)
                begun = True
                raise EngineLostError("an engine ended its answer without a picture")
            except _LOST as error:
                await losses.after(error, begun=begun)
        raise CancelledError("cancelled while no engine drew")

    async def _sent(
        self, requests: Sequence[Request], previews: Sequence[bool], cancel: CancelToken
    ) -> AsyncIterator[Sent]:
        """What a replica sends, as it comes. Raises CancelledError."""
        stream = self._handle.options(stream=True).draw.remote(requests, previews=previews)
        coming = aiter(stream)
        try:
            while True:
                each = asyncio.ensure_future(anext(coming))
                while not (await asyncio.wait({each}, timeout=_POLL_S))[0]:
                    if cancel.is_set():
                        each.cancel()
                        raise CancelledError("cancelled while an engine drew")
                try:
                    yield each.result()
                except StopAsyncIteration:
                    return
        finally:
            stream.cancel()

    async def close(self) -> None:
        self._photos.close()
        await asyncio.get_running_loop().run_in_executor(None, self._stop)


class _Losses:
    """Of one call: how many engines died while they were at it."""

    def __init__(self, most: int) -> None:
        self._most, self._count, self._pause_s = most, 0, _PAUSE_S

    async def after(self, error: Exception, *, begun: bool) -> None:
        """Wait before the call is made again; raises EngineLostError where it is not.

        begun: an engine that ended before did not die of this call, and does not count.
        """
        self._count += begun
        again = self._count <= self._most
        tell("engine_lost", kind=type(error).__name__, losses=self._count, again=again)
        if not again:
            raise EngineLostError(
                f"{self._count} engines that drew this ended, one after the other"
            ) from error
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _MOST_PAUSE_S)
