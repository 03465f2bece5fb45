"""One engine of a cluster: an open bundle, in a process that Ray starts and starts again."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.tune.settings import CallTime
from runtime import FaceDiffuser, FaceDiffuserError, Identity, Request, Result, StepInfo
from server.jobs.engine import Step, step_of


@dataclass(frozen=True)
class Raised:
    """An error on its way to who asked: Ray would wrap it in a class of its own."""

    error: Exception


@dataclass(frozen=True)
class Begun:
    """From here on a replica that dies may have died of what it draws."""


# What a replica sends: that it begins; which request and its step; at the end all results, or an
# error.
Sent = Begun | tuple[int, Step] | list[Result] | Raised


@dataclass(frozen=True, kw_only=True)
class ReplicaFacts:
    """Of an engine's process."""

    provider: str
    pid: int
    call_time: CallTime | None


class Replica:
    """The deployment's class. All calls of the engine are made by one thread, as in one process."""

    def __init__(self, bundle: str, options: dict[str, Any]) -> None:
        """options: FaceDiffuser.open's."""
        self._face_diffuser = FaceDiffuser.open(bundle, **options)
        self._face_diffuser.warm_up()
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def facts(self) -> ReplicaFacts:
        return ReplicaFacts(
            provider=self._face_diffuser.provider, pid=os.getpid(),
            call_time=self._face_diffuser.call_time,
        )  # fmt: skip

    async def encode(self, pixels: npt.NDArray[np.uint8]) -> Identity | Raised:
        """A person from a photo that was decoded elsewhere."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._owner, self._encoded, pixels)

    def _encoded(self, pixels: npt.NDArray[np.uint8]) -> Identity | Raised:
        try:
            return self._face_diffuser.encode_reference(pixels)
        except Exception as error:
            return carried(error)

    async def draw(
        self, requests: Sequence[Request], *, previews: Sequence[bool]
    ) -> AsyncIterator[Sent]:
        """That it begins, each request's steps when they are done, then all results, or what was
        raised.

        Whoever stops listening ends the drawing after its step; the replica takes no other before.
        """
        loop, told = asyncio.get_running_loop(), asyncio.Queue[Sent]()
        unwanted = threading.Event()

        def tell(each: Sent) -> None:
            loop.call_soon_threadsafe(told.put_nowait, each)

        def after_step(at: int, info: StepInfo) -> None:
            tell((at, step_of(info, preview=previews[at])))

        def drawn() -> None:
            try:
                tell(
                    self._face_diffuser.generate_together(
                        requests, on_step=after_step, cancel=unwanted
                    )
                )
            except Exception as error:
                tell(carried(error))

        drawing = loop.run_in_executor(self._owner, drawn)
        try:
            yield Begun()
            while True:
                each = await told.get()
                yield each
                if not isinstance(each, tuple):
                    return
        finally:
            unwanted.set()
            await asyncio.wait({drawing})


def carried(error: Exception) -> Raised:
    """An error that can be sent; of one that cannot, its kind alone."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = FaceDiffuserError(f"the engine raised {type(error).__name__}")
    return Raised(error)
