"""An engine for the server's tests that draws noise of the seed, so many seconds a step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from runtime import CancelledError, CancelToken, Identity, Request, Result
from server.jobs.engine import Step


class PacingEngine:
    """Keeps what it was asked to draw. step_s: how long a step takes, may be changed."""

    native_px = 64
    engines = 1

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.drawn: list[Request] = []
        self.steps = 0
        self.idle = threading.Event()
        self.idle.set()
        self.fails: Exception | None = None
        self._owner = ThreadPoolExecutor(1)

    def check(self, request: Request) -> None:
        """Everything can be drawn."""

    async def check_photo(self, photo: bytes) -> None:
        """Every photo can be read."""

    async def encode(self, photo: bytes) -> Identity:
        if self.fails is not None:
            raise self.fails
        embeds = np.full(8, sum(photo) % 251, np.float32)
        return Identity(embeds=embeds, encoder="double", reference_resolution=512)

    async def draw(
        self,
        request: Request,
        *,
        cancel: CancelToken,
        on_step: Callable[[Step], None],
        previews: bool,
    ) -> Result:
        loop = asyncio.get_running_loop()

        def tell(step: Step) -> None:
            loop.call_soon_threadsafe(on_step, step)

        return await loop.run_in_executor(
            self._owner, lambda: self._draw(request, cancel, tell, previews=previews)
        )

    async def close(self) -> None:
        self._owner.shutdown()

    def _draw(
        self,
        request: Request,
        cancel: CancelToken,
        tell: Callable[[Step], None],
        *,
        previews: bool,
    ) -> Result:
        self.idle.clear()
        try:
            self.drawn.append(request)
            if self.fails is not None:
                raise self.fails
            picture = noise(request.seed or 0)
            for step in range(request.num_inference_steps):
                time.sleep(self.step_s)
                self.steps += 1
                preview = picture if previews else None
                count = request.num_inference_steps
                tell(Step(step=step, num_steps=count, stage="scene", preview=preview))
                if cancel.is_set():
                    raise CancelledError("cancelled")
        finally:
            self.idle.set()
        seeds = tuple((request.seed or 0) + n for n in range(request.num_images))
        return Result(
            images=[noise(seed) for seed in seeds], seed=seeds[0], seeds=seeds,
            timings_ms={"total": 1.0}, provider="double", bundle="none", request=request,
            unread={}, warnings=(), evaluations=1, saliency=None,
        )  # fmt: skip


def noise(seed: int) -> Image.Image:
    """The picture of a seed."""
    levels = np.random.RandomState(seed).randint(0, 256, (64, 64, 3))
    return Image.fromarray(levels.astype(np.uint8))
