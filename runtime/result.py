"""What a request gives back, and what its callback is told at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from PIL import Image

from engines.bundle.files import write_atomic
from engines.bundle.quantization import Quantization
from engines.engine import HostPrecision
from engines.errors import RequestError
from runtime.method.saliency import Float32Array, Saliency
from runtime.method.schedule import Stage
from runtime.pictures.files import check_writable, encoded, metadata, numbered
from runtime.pictures.overlay import Shown, overlay
from runtime.pictures.previews import Previews
from runtime.request import Request

Images = list[Image.Image] | Float32Array


@dataclass(frozen=True, kw_only=True, eq=False)
class StepInfo:
    """A finished step.

    read_latents: copies the latents from where they are, which on a GPU takes time; use `latents`.
    previews: how they become small pictures; use `preview`.
    """

    step: int
    num_steps: int
    timestep: int
    stage: Stage
    read_latents: Callable[[], Float32Array]
    previews: Previews

    @cached_property
    def latents(self) -> Float32Array:
        """[images, 4, h, w] float32 after the step, a copy, fetched when first asked for there."""
        return self.read_latents()

    def preview(self) -> list[Image.Image]:
        """The latents as pictures of an eighth of the size, one per image, without any engine.

        Early ones show noise: the latents are drawn as they are. Raises BundleError where the
        bundle has no map for it.
        """
        return self.previews.pictures(self.latents)


@dataclass(frozen=True, eq=False)
class StepSaliency:
    """The saliency maps and mask of one step of the fusion stage."""

    step: int
    timestep: int
    saliency: Saliency


class SaliencySteps(tuple[StepSaliency, ...]):
    """What SNF saw at each step of the fusion stage, in order, and the pictures it led to."""

    pictures: Images

    def __new__(cls, steps: Iterable[StepSaliency], pictures: Images) -> Self:
        made = super().__new__(cls, steps)
        made.pictures = pictures
        return made

    def overlay(self, *, image: int = 0, step: int = -1, shown: Shown = "mask") -> Image.Image:
        """A picture with a step's saliency over it, RGB.

        step: an index into these steps, by default the last. shown: "mask" colors what was taken
        from SDM orange and what was taken from TDM blue; "tdm" and "sdm" show that model's
        saliency. Raises RequestError where no step fused by saliency, or the images are no
        pictures.
        """
        if not self:
            raise RequestError(
                "no step fused by saliency, so there is nothing to show; take alpha below beta "
                'and fusion="saliency"'
            )
        return overlay(
            _pictures(self.pictures, "overlay")[image],
            self[step].saliency,
            image=image,
            shown=shown,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The pictures of a request.

    images: a list of PIL pictures, or an array: "np" [images, height, width, 3] float32 in [0, 1],
    "latent" [images, 4, h, w] float32; `pictures` and `array` are the same for type checkers.
    seeds: one per image. timings_ms: milliseconds on text,
    references, scene, fusion, subject, decode (these four by the GPU's own clock, where there is
    one), and in total. evaluations: passes through a U-Net that each picture took. unread: the end
    of "prompt" or "negative_prompt" that lies beyond the model's window, so that it had no effect;
    empty where all of it was read. warnings: what of the settings is known to draw badly, one
    sentence each. saliency: one entry per fusion step if it was asked for. bundle: digest of the
    manifest it was drawn from. quantization: the U-Nets' 8 bits; None for their own precision.
    precision: what a CPU computed the U-Nets in; None for a GPU, where it is the bundle's.
    request keeps the photos it was made with, and every setting as it was used, whatever decided
    it.
    """

    images: Images
    seed: int
    seeds: tuple[int, ...]
    timings_ms: dict[str, float]
    evaluations: int
    provider: str
    bundle: str
    request: Request
    unread: Mapping[str, str]
    warnings: tuple[str, ...]
    saliency: SaliencySteps | None
    quantization: Quantization | None = None
    precision: HostPrecision | None = None

    @property
    def pictures(self) -> list[Image.Image]:
        """The images as PIL pictures. Raises RequestError for a request for "np" or "latent"."""
        return _pictures(self.images, "pictures")

    @property
    def array(self) -> Float32Array:
        """The images of a request for "np" or "latent". Raises RequestError for pictures."""
        if isinstance(self.images, list):
            raise RequestError(
                'the images are pictures; draw with output_type="np" or "latent" for an array'
            )
        return self.images

    def metadata(self, image: int = 0) -> dict[str, Any]:
        """How a picture came about: bundle, seed and settings, without prompt or photos."""
        return metadata(
            self.request,
            seed=self.seeds[image],
            provider=self.provider,
            bundle=self.bundle,
            quantization=self.quantization,
            precision=self.precision,
        )

    def save_all(self, path: str | Path, *, with_metadata: bool = True) -> list[Path]:
        """Write every picture, each whole or not at all; returns their paths.

        path: of the only picture; several get numbers, park-0.png, park-1.png. Its suffix names
        the format. with_metadata: a PNG tells bundle, seed and settings and is marked as made by a
        model. Raises RequestError for images that are no pictures and for names that cannot be
        written, before it writes any.
        """
        paths = numbered(Path(path), len(_pictures(self.images, "save_all")))
        for file in paths:
            check_writable(file)
        contents = self.encoded(paths, with_metadata=with_metadata)
        for file, content in zip(paths, contents, strict=True):
            write_atomic(file, content)
        return paths

    def encoded(self, paths: Sequence[Path], *, with_metadata: bool = True) -> list[bytes]:
        """Every picture as the content of the file that a path names; its suffix says the format.

        with_metadata: as in save_all. Raises RequestError as it does.
        """
        pictures = _pictures(self.images, "encoded")
        return [
            encoded(picture, path, self.metadata(image) if with_metadata else None)
            for image, (picture, path) in enumerate(zip(pictures, paths, strict=True))
        ]

    def __repr__(self) -> str:
        """Which pictures these are, and nothing of what they show or of who is in them."""
        kind = type(self.images).__name__
        return (
            f"Result({len(self.images)} images in a {kind}, seed={self.seed}, "
            f"provider={self.provider!r}, timings_ms={self.timings_ms})"
        )


def _pictures(images: Images, what: str) -> list[Image.Image]:
    if isinstance(images, list):
        return images
    raise RequestError(
        f'{what} needs pictures, and this request asked for an array; draw with output_type="pil"'
    )
