"""A request: what to draw. A constructed request is valid in itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from engines.contract import LATENT_PX, SIZE_MULTIPLE_PX
from engines.errors import RequestError, did_you_mean, shown
from engines.guides import GuidanceRule
from runtime.inputs.identity import Identity
from runtime.inputs.photo import Photo, check_array
from runtime.method.saliency import Fusion
from runtime.method.schedule import StageBoundaries
from runtime.method.solvers import Scheduler
from runtime.presets import PRESETS, Defaults, Preset

if TYPE_CHECKING:
    from runtime.inputs.words import (
        FusionWord,
        GuidanceRuleWord,
        OutputTypeWord,
        PresetWord,
        SchedulerWord,
    )

Reference = Photo | Identity
Choice = TypeVar("Choice", bound=StrEnum)

# Far beyond what a model makes of them (scripts take 5; noise reaches 6), and far below what half
# precision can hold.
MAX_GUIDANCE_SCALE = 100.0
MAX_LATENT = 1000.0
# Guidance that was kept eight steps ago has little to do with the step it is added to.
MAX_GUIDANCE_EVERY = 8
# The model reads 77 tokens, some 400 characters; what is longer takes its time and has no effect.
MAX_TEXT_CHARACTERS = 10_000
MAX_REFERENCE_RESOLUTION = 4096
# A field's default that its preset decides; a constructed request has a value there.
BY_PRESET = cast(Any, None)


class OutputType(StrEnum):
    """What a result's images are."""

    PIL = "pil"
    NP = "np"
    LATENT = "latent"


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What to draw.

    prompt: with <|image|> after the word for each person. references: one photo or Identity per
    marker, in the prompt's order; a photo is a path, a PIL picture, uint8 [h, w, 3], the bytes of a
    picture's file or a file open for reading. guidance_scale: above 1, up to 100. seed: of the
    first image, image i has seed + i; None draws one. height, width: px, multiples of 64; None
    takes the model's own. alpha, beta: shares of the steps after which fusion starts and ends
    (paper); start_merge_step, final_step: the released script's inclusive step numbers, which win
    when given. guidance_rule: "paper", "released", or "fastcomposer", which has no fusion: text
    alone up to start_merge_step (or alpha), then the people; it draws as FastComposer does from a
    bundle whose two U-Nets are one. latents: initial noise [num_images, 4, h, w], within 1000 on
    either side of 0, kept as a float32 copy that cannot be written.
    reference_resolution: px that references are brought to first (released --object_resolution).
    saliency: give the fusion steps' maps and masks back.
    preset: "quality", "balanced" or "fast"; decides, where they are not given, num_inference_steps,
    scheduler, guidance_rule, guidance_every (in the subject stage, compute the whole guidance each
    so many steps and take the last one's in between) and guidance_until (share of the trajectory
    from which on the subject stage has none). A constructed request has all of them. Raises
    RequestError.
    """

    prompt: str
    references: Sequence[Reference]
    negative_prompt: str = ""
    preset: Preset = Preset.QUALITY
    num_inference_steps: int = BY_PRESET
    guidance_scale: float = 5.0
    seed: int | None = None
    num_images: int = 1
    height: int | None = None
    width: int | None = None
    scheduler: Scheduler = BY_PRESET
    alpha: float = 0.3
    beta: float = 0.6
    start_merge_step: int | None = None
    final_step: int | None = None
    guidance_rule: GuidanceRule = BY_PRESET
    guidance_every: int = BY_PRESET
    guidance_until: float = BY_PRESET
    fusion: Fusion = Fusion.SALIENCY
    reference_resolution: int = 512
    latents: npt.NDArray[np.floating] | None = None
    output_type: OutputType = OutputType.PIL
    saliency: bool = False

    if TYPE_CHECKING:
        # What the fields are made of is wider than what they are: a word stands for its enum.
        def __init__(
            self,
            *,
            prompt: str,
            references: Sequence[Reference],
            negative_prompt: str = ...,
            preset: Preset | PresetWord = ...,
            num_inference_steps: int | None = ...,
            guidance_scale: float = ...,
            seed: int | None = ...,
            num_images: int = ...,
            height: int | None = ...,
            width: int | None = ...,
            scheduler: Scheduler | SchedulerWord | None = ...,
            alpha: float = ...,
            beta: float = ...,
            start_merge_step: int | None = ...,
            final_step: int | None = ...,
            guidance_rule: GuidanceRule | GuidanceRuleWord | None = ...,
            guidance_every: int | None = ...,
            guidance_until: float | None = ...,
            fusion: Fusion | FusionWord = ...,
            reference_resolution: int = ...,
            latents: npt.NDArray[np.floating] | None = ...,
            output_type: OutputType | OutputTypeWord = ...,
            saliency: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            self._check_text(name, getattr(self, name))
        self._check_references()
        self._take_preset()
        self._check_int("num_inference_steps", 1, 999)
        self._check_int("guidance_every", 1, MAX_GUIDANCE_EVERY)
        self._check_int("num_images", 1, 16)
        check_reference_resolution(self.reference_resolution)
        self._check_int("reference_resolution", 1, MAX_REFERENCE_RESOLUTION)
        if self.seed is not None:
            self._check_int("seed", 0, 2**32 - 1)
        for name in ("start_merge_step", "final_step"):
            if getattr(self, name) is not None:
                self._check_int(name, -1, 10**6)
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                self._check_size(name, getattr(self, name))
                object.__setattr__(self, name, int(getattr(self, name)))
        if not _is_finite(self.guidance_scale) or self.guidance_scale <= 1:
            raise RequestError(
                f"guidance_scale must be above 1, got {shown(self.guidance_scale)}: at 1 and below "
                "neither model has a guidance to compare; the released scripts take 5"
            )
        if self.guidance_scale > MAX_GUIDANCE_SCALE:
            raise RequestError(
                f"guidance_scale must be {MAX_GUIDANCE_SCALE:g} or less, "
                f"got {shown(self.guidance_scale)}; the released scripts take 5"
            )
        if not (_is_finite(self.alpha) and _is_finite(self.beta)) or not (
            0 <= self.alpha <= self.beta <= 1
        ):
            raise RequestError(
                "alpha and beta must satisfy 0 <= alpha <= beta <= 1, "
                f"got alpha={shown(self.alpha)}, beta={shown(self.beta)}"
            )
        if not _is_finite(self.guidance_until) or not self.beta <= self.guidance_until <= 1:
            raise RequestError(
                f"guidance_until must be from beta ({self.beta:g}) to 1, got "
                f"{shown(self.guidance_until)}: the fusion compares both models' guidance"
            )
        for name in ("guidance_scale", "alpha", "beta", "guidance_until"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not isinstance(self.saliency, bool):
            raise RequestError(f"saliency must be True or False, got {shown(self.saliency)}")
        for name, kind in (
            ("scheduler", Scheduler),
            ("guidance_rule", GuidanceRule),
            ("fusion", Fusion),
            ("output_type", OutputType),
        ):
            object.__setattr__(self, name, _choice(name, kind, getattr(self, name)))
        if not self.guidance_rule.fuses and self.final_step is not None:
            raise RequestError(
                f"final_step={self.final_step} ends a fusion, and guidance_rule "
                f'"{self.guidance_rule}" has none; leave final_step out'
            )
        if self.latents is not None:
            object.__setattr__(self, "latents", self._checked_latents())

    @classmethod
    def each(
        cls, prompts: Iterable[str], references: Sequence[Reference], **settings: Any
    ) -> list[Request]:
        """A request for each of several prompts of the same people, for `FaceDiffuser.generate`.

        references: better identities than photos, which are encoded for each request anew.
        settings: Request's other fields, the same for all. Raises RequestError.
        """
        if isinstance(prompts, str):
            raise RequestError("prompts must be a list of texts, got one text; write [...]")
        return [cls(prompt=each, references=references, **settings) for each in prompts]

    def __repr__(self) -> str:
        """Everything but photos and noise, of which the kind is told."""
        fields_told = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "references":
                value = [type(each).__name__ for each in value]
            elif field.name == "latents" and value is not None:
                value = f"float32 {list(value.shape)}"
            fields_told.append(f"{field.name}={value!r}")
        return f"Request({', '.join(fields_told)})"

    def boundaries(self, shares: Sequence[float]) -> StageBoundaries:
        """The stages of a run. shares: how much of the trajectory lies behind each step."""
        paper = StageBoundaries.from_fractions(self.alpha, self.beta, shares)
        start, final = self.start_merge_step, self.final_step
        start = paper.start_merge_step if start is None else start
        if not self.guidance_rule.fuses:
            return StageBoundaries(start_merge_step=start, final_step=start)
        return StageBoundaries(
            start_merge_step=start, final_step=paper.final_step if final is None else final
        )

    def _take_preset(self) -> None:
        """Fill the fields that were left to the preset; what was given wins."""
        preset = _choice("preset", Preset, self.preset)
        object.__setattr__(self, "preset", preset)
        for field in fields(Defaults):
            if getattr(self, field.name) is None:
                object.__setattr__(self, field.name, getattr(PRESETS[preset], field.name))

    def _check_references(self) -> None:
        references = self.references
        if isinstance(references, str | bytes) or not isinstance(references, Sequence):
            raise RequestError(
                "references must be a list with one photo per <|image|>, "
                f"got {type(references).__name__}; write references=[...]"
            )
        object.__setattr__(self, "references", tuple(references))
        for number, reference in enumerate(self.references, 1):
            is_file = callable(getattr(reference, "read", None))
            if not is_file and not isinstance(reference, _REFERENCE_TYPES):
                raise RequestError(
                    f"reference {number} must be a path, a PIL picture, a uint8 array [h, w, 3], "
                    "the bytes of a picture's file, a file open for reading bytes or an Identity, "
                    f"got {type(reference).__name__}"
                )
            if isinstance(reference, np.ndarray):
                check_array(reference)

    def _check_text(self, name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise RequestError(f"{name} must be text, got {type(value).__name__}")
        if len(value) > MAX_TEXT_CHARACTERS:
            raise RequestError(
                f"{name} must have {MAX_TEXT_CHARACTERS} characters or fewer, got {len(value)}; "
                "the model reads some 400 of them"
            )

    def _check_int(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise RequestError(f"{name} must be a whole number, got {shown(value)}")
        if not low <= value <= high:
            raise RequestError(f"{name} must be from {low} to {high}, got {value}")
        # NumPy's integers overflow where Python's do not: seed + image, 1000 // steps.
        object.__setattr__(self, name, int(value))

    def _check_size(self, name: str, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int | np.integer):
            raise RequestError(f"{name} must be a whole number of px, got {shown(size)}")
        if size % SIZE_MULTIPLE_PX or not 0 < size <= 4096:
            nearest = (int(size) + SIZE_MULTIPLE_PX // 2) // SIZE_MULTIPLE_PX * SIZE_MULTIPLE_PX
            nearest = min(max(nearest, SIZE_MULTIPLE_PX), 4096)
            raise RequestError(
                f"{name} must be a multiple of {SIZE_MULTIPLE_PX} px up to 4096, got {size}; "
                f"the nearest is {nearest}"
            )

    def _checked_latents(self) -> npt.NDArray[np.float32]:
        """A float32 copy, so that what was checked is what is drawn from."""
        try:
            latents = np.asarray(self.latents)
        except ValueError as error:
            raise RequestError(f"latents must be an array of numbers: {error}") from error
        if latents.ndim != 4 or latents.dtype.kind not in "fiu" or len(latents) != self.num_images:
            raise RequestError(
                f"latents must be numbers [{self.num_images}, channels, h, w] (num_images first), "
                f"got {latents.dtype} {list(latents.shape)}"
            )
        for name, size in zip(("height", "width"), latents.shape[2:], strict=True):
            asked = getattr(self, name)
            if asked is not None and asked != size * LATENT_PX:
                raise RequestError(
                    f"latents of shape {list(latents.shape)} are for {name} {size * LATENT_PX} px, "
                    f"the request says {asked}; leave {name} out"
                )
            self._check_size(name, size * LATENT_PX)
        with np.errstate(over="ignore"):
            single = latents.astype(np.float32)
        if not np.isfinite(single).all():
            raise RequestError("latents must be finite in float32, got NaN or infinity")
        if (most := float(np.abs(single).max())) > MAX_LATENT:
            raise RequestError(
                f"latents must lie within {MAX_LATENT:g} on either side of 0, as noise does, "
                f"got {most:.3g}"
            )
        single.setflags(write=False)
        return single


_REFERENCE_TYPES = (
    str, Path, Image.Image, np.ndarray, bytes, bytearray, memoryview, Identity,
)  # fmt: skip


def check_reference_resolution(value: Any) -> None:
    """Raise RequestError unless it is a whole number of px in range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise RequestError(f"reference_resolution must be a whole number, got {shown(value)}")
    if not 1 <= value <= MAX_REFERENCE_RESOLUTION:
        raise RequestError(
            f"reference_resolution must be from 1 to {MAX_REFERENCE_RESOLUTION}, got {value}"
        )


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    try:
        return number and math.isfinite(value)
    except OverflowError:
        return False


def _choice(name: str, kind: type[Choice], value: Any) -> Choice:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(each.value) for each in kind)
        meant = did_you_mean(value, kind)
        raise RequestError(f"{name} must be one of {choices}, got {shown(value)}{meant}") from None
