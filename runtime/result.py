"""What a request gives back, and what its callback is told at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runtime.method.saliency import Float32Array, Saliency
from runtime.method.schedule import Stage
from runtime.request import Request


@dataclass(frozen=True, kw_only=True, eq=False)
class StepInfo:
    """A finished step.

    read_latents: copies the latents from where they are, which on a GPU takes time; use `latents`.
    """

    step: int
    num_steps: int
    timestep: int
    stage: Stage
    read_latents: Callable[[], Float32Array]

    @cached_property
    def latents(self) -> Float32Array:
        """[images, 4, h, w] float32 after the step, a copy, fetched when first asked for there."""
        return self.read_latents()


@dataclass(frozen=True, eq=False)
class StepSaliency:
    """The saliency maps and mask of one step of the fusion stage."""

    step: int
    timestep: int
    saliency: Saliency


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The pictures of a request.

    images: PIL pictures, or an array: "np" [images, height, width, 3] float32 in [0, 1], "latent"
    [images, 4, h, w] float32. seeds: one per image. timings_ms: milliseconds spent on text,
    references, scene, fusion, subject, decode (these four by the GPU's own clock, where there is
    one), and in total. unread: the end of "prompt" or "negative_prompt" that lies beyond the
    model's window, so that it had no effect; empty where all of it was read. saliency: one entry
    per fusion step if it was asked for. bundle: digest of the manifest it was drawn from. request
    keeps the photos it was made with.
    """

    images: Any
    seed: int
    seeds: tuple[int, ...]
    timings_ms: dict[str, float]
    provider: str
    bundle: str
    request: Request
    unread: Mapping[str, str]
    saliency: tuple[StepSaliency, ...] | None

    def __repr__(self) -> str:
        """Which pictures these are, and nothing of what they show or of who is in them."""
        kind = type(self.images).__name__
        return (
            f"Result({len(self.images)} images in a {kind}, seed={self.seed}, "
            f"provider={self.provider!r}, timings_ms={self.timings_ms})"
        )
