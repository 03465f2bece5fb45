"""What a picture is drawn from and what comes of it, whichever backend draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from engines.contract import Component
from engines.engine import Array
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule, Pass
from engines.tune.settings import HostSettings
from runtime.method.guidance import Float32Array, SubjectGuidance
from runtime.method.saliency import Fusion
from runtime.method.schedule import Column, Stage, StageBoundaries
from runtime.pictures.previews import Previews
from runtime.request import OutputType
from runtime.result import StepSaliency

PassEmbeds = Mapping[Pass, Float32Array]


@dataclass(frozen=True, kw_only=True)
class RequestKind:
    """What a backend prepares for ahead of a request: everything that its graphs depend on.

    images, height, width: of the latents. saliency: whether maps and masks are asked for.
    guidance: the kinds of guidance that steps of the subject stage may have.
    """

    images: int
    height: int
    width: int
    guidance_rule: GuidanceRule = GuidanceRule.PAPER
    fusion: Fusion = Fusion.SALIENCY
    saliency: bool = False
    guidance: frozenset[SubjectGuidance] = frozenset({SubjectGuidance.FULL})

    @property
    def runs_alone(self) -> bool:
        """Whether some step needs SDM's augmented pass by itself."""
        return any(each.alone for each in self.guidance)

    @property
    def keeps_maps(self) -> bool:
        """Whether there are maps to keep: addition has none."""
        return self.saliency and self.fusion is Fusion.SALIENCY


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trajectory:
    """One denoising run.

    latents: initial noise [images, 4, h, w] float32. table: one row per step (schedule.Column).
    guidance: of every step, of meaning in the subject stage. embeds: prompt embeds
    [images, tokens, text_width] float32 of each guidance pass.
    """

    kind: RequestKind
    latents: Float32Array
    table: Float32Array
    boundaries: StageBoundaries
    guidance: tuple[SubjectGuidance, ...]
    embeds: PassEmbeds
    guidance_scale: float
    output_type: OutputType
    previews: Previews

    def __len__(self) -> int:
        return len(self.table)

    def timestep(self, step: int) -> int:
        """Noise level of a step, 0 to 999."""
        return int(self.table[step, Column.TIMESTEP])

    def stages(self) -> tuple[Stage, ...]:
        """The stage of every step."""
        return tuple(self.boundaries.stage(step) for step in range(len(self)))

    def evaluations(self) -> int:
        """Passes through a U-Net that a picture takes: what its time goes by."""
        tdm, sdm = len(TDM_GUIDE.passes), len(SDM_GUIDES[self.kind.guidance_rule].passes)
        passes = {Stage.SCENE: tdm, Stage.FUSION: tdm + sdm, Stage.SUBJECT: sdm}
        return sum(
            1 if stage is Stage.SUBJECT and guidance.alone else passes[stage]
            for stage, guidance in zip(self.stages(), self.guidance, strict=True)
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Drawn:
    """The end of a trajectory: images as Result has them, milliseconds by stage."""

    images: Any
    saliency: tuple[StepSaliency, ...]
    timings_ms: Mapping[str, float]


class Stepper(Protocol):
    """Takes the steps of one trajectory, in order; a step may still be under way on return.

    ahead: how many steps it is well to take before it is waited for the one before them.
    """

    @property
    def ahead(self) -> int: ...

    def scene(self, step: int) -> None:
        """TDM's guided noise (Eq. 1) moves the latents to the next noise level."""
        ...

    def fusion(self, step: int) -> None:
        """The noises of both models, fused (Eq. 3 to 5), move them."""
        ...

    def subject(self, step: int) -> None:
        """SDM's guided noise (Eq. 2) moves them."""
        ...

    def mark(self, step: int) -> None:
        """Somebody will hear of the step that was just taken, and may read its latents."""
        ...

    def wait(self, step: int) -> None:
        """Return when a marked step is done."""
        ...

    def latents_reader(self, step: int) -> Callable[[], Float32Array]:
        """What gives [images, 4, h, w] float32 after a step, while that is the last waited for."""
        ...

    def finish(self) -> Drawn:
        """Decode, wait, and give the result; raises NonFiniteError."""
        ...


class Backend(Protocol):
    """A bundle's components on one backend: the host's in numpy, or a GPU's."""

    @property
    def provider(self) -> str: ...

    @property
    def host_settings(self) -> HostSettings | None:
        """What a host computes with; None for a GPU, whose engines say."""
        ...

    @property
    def nests(self) -> bool:
        """Whether a run may begin while another stands between two steps."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """What a thread holds while it calls: run and stepper, and the stepper's own methods."""
        ...

    def run(
        self, component: Component, inputs: Mapping[str, Array], output_shape: tuple[int, ...]
    ) -> Array:
        """Run an encoder; its output is valid until it runs again. Raises NonFiniteError."""
        ...

    def warm_up(self, kind: RequestKind) -> None:
        """Do now what the first request of this kind would wait for."""
        ...

    def stepper(self, trajectory: Trajectory) -> Stepper:
        """Set a trajectory up; one at a time."""
        ...

    def close(self) -> None: ...


def as_pictures(pixels: Float32Array) -> Float32Array:
    """The decoder's [images, 3, H, W] in [-1, 1] as [images, H, W, 3] in [0, 1]."""
    pictures: Float32Array = np.clip(pixels.transpose(0, 2, 3, 1) * np.float32(0.5) + 0.5, 0, 1)
    return pictures
