"""An engine for the server's tests that draws noise of the seed, so many seconds a step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from PIL import Image

from runtime import CancelledError, CancelToken, Identity, Request, Result
from server.jobs.engine import OnResult, OnStep, Step


class PacingEngine:
    """Keeps what it was asked to draw. step_s: how long a step takes, may be changed; so may
    together, the most requests of a call, and fails_at, a seed that no call draws."""

    native_px = 64
    engines = 1

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.drawn: list[Request] = []
        self.steps = 0
        self.idle = threading.Event()
        self.idle.set()
        self.fails: Exception | None = None
        self.fails_at: int | None = None
        self.together = 1
        self.calls: list[int] = []
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

    def companions(self, requests: Sequence[Request]) -> Sequence[int]:
        """All that wait, up to as many as `together` says."""
        return range(min(self.together, len(requests)))

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

        def tell(step: Step) -> None:
            for at, preview in enumerate(previews):
                seen = step if preview else replace(step, preview=None)
                loop.call_soon_threadsafe(on_step, at, seen)

        def draw() -> None:
            self._draw(requests, cancel, tell)
            for at, each in enumerate(requests):
                on_result(at, result(each))

        await loop.run_in_executor(self._owner, draw)

    async def close(self) -> None:
        self._owner.shutdown()

    def _draw(
        self,
        requests: Sequence[Request],
        cancel: CancelToken,
        tell: Callable[[Step], None],
    ) -> None:
        self.idle.clear()
        try:
            self.drawn += requests
            self.calls.append(len(requests))
            if self.fails is not None:
                raise self.fails
            if any(each.seed == self.fails_at for each in requests):
                raise ValueError("of this seed")
            picture = noise(requests[0].seed or 0)
            count = requests[0].num_inference_steps
            for step in range(count):
                time.sleep(self.step_s)
                self.steps += 1
                tell(Step(step=step, num_steps=count, stage="scene", preview=picture))
                if cancel.is_set():
                    raise CancelledError("cancelled")
        finally:
            self.idle.set()


def result(request: Request) -> Result:
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
