"""Pictures and saliency maps as files, encoded by threads that are not the event loop's."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from runtime import Result, StepSaliency

Format = Literal["png", "jpeg", "webp"]
MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawn picture as a file, with the mark that a model made it."""

    seed: int
    content: bytes


@dataclass(frozen=True, kw_only=True)
class SaliencyMap:
    """One fusion step of the first image as a PNG [h, w] of latents' size.

    Red is TDM's saliency and green SDM's, each scaled to its own maximum; blue is the mask, 255
    where SDM's noise was taken.
    """

    step: int
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a job gives: files, and how they came about."""

    pictures: tuple[Picture, ...]
    saliency: tuple[SaliencyMap, ...]
    timings_ms: dict[str, float]
    provider: str
    bundle: str
    unread: dict[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """All but the files."""
        return {
            "seeds": [each.seed for each in self.pictures],
            "timings_ms": self.timings_ms,
            "provider": self.provider,
            "bundle": self.bundle,
            "unread": self.unread,
        }


class Encoder:
    """Threads that encode; zlib lets go of the interpreter while it works."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        # One thread, so that previews come in the order of their steps.
        self._previews = ThreadPoolExecutor(1, thread_name_prefix="preview")

    def encoding(self, result: Result, kind: Format) -> Future[Drawn]:
        """A result's files, once they are made."""
        return self._threads.submit(drawn_of, result, kind)

    def preview(self, image: Image.Image, then: Callable[[bytes], None]) -> None:
        """Encode a preview, and hand it on from the thread that did."""
        self._previews.submit(lambda: then(png_of(image)))

    def close(self) -> None:
        self._threads.shutdown()
        self._previews.shutdown()


def drawn_of(result: Result, kind: Format) -> Drawn:
    """A result as files."""
    started = time.perf_counter()
    contents = result.encoded([Path(f"picture.{kind}")] * len(result.seeds))
    pictures = tuple(
        Picture(seed=seed, content=content)
        for seed, content in zip(result.seeds, contents, strict=True)
    )
    saliency = tuple(map(_saliency_map, result.saliency or ()))
    timings_ms = {**result.timings_ms, "encode": 1e3 * (time.perf_counter() - started)}
    return Drawn(
        pictures=pictures,
        saliency=saliency,
        timings_ms={name: round(ms, 3) for name, ms in timings_ms.items()},
        provider=result.provider,
        bundle=result.bundle,
        unread=dict(result.unread),
    )


def png_of(image: Image.Image) -> bytes:
    """A picture as a PNG, quickly: level 1 takes a third of level 6's time."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _saliency_map(seen: StepSaliency) -> SaliencyMap:
    maps = seen.saliency
    planes = [each[0] / max(float(each[0].max()), 1e-30) for each in (maps.tdm, maps.sdm)]
    levels = np.stack([*planes, maps.mask[0].astype(np.float32)], axis=-1)
    image = Image.fromarray(np.rint(255 * levels).astype(np.uint8))
    return SaliencyMap(step=seen.step, content=png_of(image))
