"""The loop: scene construction, subject-scene fusion, subject enhancement (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtime.guidance import Guided
from runtime.result import StepInfo, StepSaliency
from runtime.saliency import Float32Array, Saliency
from runtime.schedule import (
    HISTORY_SLOTS,
    Column,
    Stage,
    StageBoundaries,
    updated_latents,
)

# latents [images, 4, h, w], timestep, step -> guided noise of all images
GuidedModel = Callable[[Float32Array, float, int], Guided]
Fuse = Callable[[Guided, Guided], tuple[Float32Array, Saliency | None]]
OnStep = Callable[[StepInfo], None]


@dataclass(frozen=True)
class Sampler:
    """Denoise latents with two models on one trajectory.

    table: coefficient table, one row per step (see schedule.Column). tdm, sdm: each model with its
    guidance applied. fuse: how their answers become one in the fusion stage.
    """

    table: Float32Array
    boundaries: StageBoundaries
    tdm: GuidedModel
    sdm: GuidedModel
    fuse: Fuse
    on_step: OnStep
    saliency: list[StepSaliency] = field(default_factory=list)

    def sample(self, latents: Float32Array) -> Float32Array:
        """latents: initial noise [images, 4, h, w] float32 -> denoised latents."""
        history = np.zeros((HISTORY_SLOTS, *latents.shape), np.float32)
        for step, row in enumerate(self.table):
            timestep = float(row[Column.TIMESTEP])
            stage = self.boundaries.stage(step)
            match stage:
                case Stage.SCENE:
                    noise = self.tdm(latents, timestep, step).noise
                case Stage.FUSION:
                    tdm = self.tdm(latents, timestep, step)
                    sdm = self.sdm(latents, timestep, step)
                    noise, saliency = self.fuse(tdm, sdm)
                    if saliency is not None:
                        self.saliency.append(StepSaliency(step, int(timestep), saliency))
                case Stage.SUBJECT:
                    noise = self.sdm(latents, timestep, step).noise
            latents = updated_latents(latents, noise, history, row)
            self.on_step(StepInfo(step, len(self.table), int(timestep), stage, latents))
        return latents
