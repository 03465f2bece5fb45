"""Who draws: the Protocol that jobs know, and the engine of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime import (
    BundleError,
    CancelToken,
    FaceDiffuser,
    FaceDiffuserError,
    Identity,
    Request,
    Result,
    StepInfo,
)
from runtime.inputs.photo import load_reference


class EngineLostError(FaceDiffuserError):
    """The process that computed has ended, and so have those that tried again."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A finished step. preview: a small picture of how far it is, if it was asked for."""

    step: int
    num_steps: int
    stage: str
    preview: Image.Image | None = None


# Which request of a call, and its step.
OnStep = Callable[[int, Step], None]
# Which request of a call, and what it gave.
OnResult = Callable[[int, Result], None]


class EngineClient(Protocol):
    """What draws. Its methods are called from the event loop.

    engines: how many `draw` may be under way at once.
    """

    @property
    def engines(self) -> int: ...

    @property
    def native_px(self) -> int:
        """Height and width of a picture whose request does not say."""
        ...

    def check(self, request: Request) -> None:
        """Raise RequestError for what `draw` would refuse, as far as that is known at once."""
        ...

    async def check_photo(self, photo: bytes) -> None:
        """Raise ReferenceImageError unless a photo can be read."""
        ...

    async def encode(self, photo: bytes) -> Identity:
        """A person from a photo."""
        ...

    def companions(self, requests: Sequence[Request]) -> Sequence[int]:
        """Which requests that wait are best drawn in one call with the first, by index."""
        ...

    async def draw(
        self,
        requests: Sequence[Request],
        *,
        cancel: CancelToken,
        on_step: OnStep,
        on_result: OnResult,
        previews: Sequence[bool],
    ) -> None:
        """Draw requests in one call.

        on_step, on the event loop, hears of each request's steps. on_result gets the results, all
        of them or none, in whatever thread has them first; it only hands them on. Raises what
        FaceDiffuser.generate_together does.
        """
        ...

    async def close(self) -> None: ...


def step_of(info: StepInfo, *, preview: bool) -> Step:
    """What jobs tell of a finished step."""
    return Step(
        step=info.step, num_steps=info.num_steps, stage=info.stage.value,
        preview=preview_of(info) if preview else None,
    )  # fmt: skip


def preview_of(info: StepInfo) -> Image.Image | None:
    """The first image's latents as a small picture; None where the bundle has no map for it."""
    try:
        return info.preview()[0]
    except BundleError:
        return None


class PhotoDecoder:
    """Threads that decode photos, so that neither the event loop nor an engine does."""

    def __init__(self, max_pixels: int) -> None:
        # Pillow's own switch, which the runtime's decoder looks at before it decodes.
        Image.MAX_IMAGE_PIXELS = max_pixels
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="decode")

    async def decoded(self, photo: bytes) -> npt.NDArray[np.uint8]:
        """A photo's pixels [h, w, 3]. Raises ReferenceImageError."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, load_reference, photo
        )

    def close(self) -> None:
        self._threads.shutdown()


class LocalEngine:
    """An open FaceDiffuser, whose every call is made by one thread, its owner."""

    def __init__(self, face_diffuser: FaceDiffuser, *, max_photo_pixels: int) -> None:
        self._face_diffuser = face_diffuser
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._photos = PhotoDecoder(max_photo_pixels)

    @property
    def engines(self) -> int:
        return 1

    @property
    def native_px(self) -> int:
        return self._face_diffuser.native_px

    def check(self, request: Request) -> None:
        self._face_diffuser.check(request)

    async def check_photo(self, photo: bytes) -> None:
        await self._photos.decoded(photo)

    async def encode(self, photo: bytes) -> Identity:
        loop, pixels = asyncio.get_running_loop(), await self._photos.decoded(photo)
        return await loop.run_in_executor(self._owner, self._face_diffuser.encode_reference, pixels)

    def companions(self, requests: Sequence[Request]) -> Sequence[int]:
        return self._face_diffuser.companions(requests)

    async def draw(
        self,
        requests: Sequence[Request],
        *,
        cancel: CancelToken,
        on_step: OnStep,
        on_result: OnResult,
        previews: Sequence[bool],
    ) -> None:
        loop = asyncio.get_running_loop()

        def tell(at: int, info: StepInfo) -> None:
            loop.call_soon_threadsafe(on_step, at, step_of(info, preview=previews[at]))

        def draw() -> None:
            results = self._face_diffuser.generate_together(requests, on_step=tell, cancel=cancel)
            for at, result in enumerate(results):
                on_result(at, result)

        await loop.run_in_executor(self._owner, draw)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._owner, self._face_diffuser.close)
        self._owner.shutdown()
        self._photos.close()
