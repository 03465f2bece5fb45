"""The work that peers are compared on: the same weights, latents, prompt embeds and steps for all.

Timed is denoising: U-Net calls, guidance, fusion and scheduler steps, from latents to latents. The
encoders and the decoder, which all would run alike, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.contract import NOISE_PREDICTORS, Component
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule, Pass
from runtime.method.schedule import Stage, StageBoundaries

Arrays = dict[str, npt.NDArray[Any]]

# In the prompt; the text pass of TDM knows them as words alone.
PEOPLE = 2
# Boundaries are inclusive step numbers; no run has so many steps.
_NEVER = 10**6


class WorkKind(StrEnum):
    """STEP: one step of the fusion stage. SCENE: TDM alone. TRAJECTORY: all three stages."""

    STEP = "step"
    SCENE = "scene"
    TRAJECTORY = "trajectory"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is denoised. Of `steps` steps the first `count` are run; guidance rule of the paper."""

    kind: WorkKind
    steps: int
    count: int
    start_merge_step: int
    final_step: int
    size_px: int
    guidance_scale: float
    images: int = 1

    def stage(self, step: int) -> Stage:
        boundaries = StageBoundaries(
            start_merge_step=self.start_merge_step, final_step=self.final_step
        )
        return boundaries.stage(step)

    def needs_sdm(self) -> bool:
        return any(self.stage(step) is not Stage.SCENE for step in range(self.count))

    def unets(self) -> tuple[Component, ...]:
        """Those that it calls."""
        return NOISE_PREDICTORS if self.needs_sdm() else NOISE_PREDICTORS[:1]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a worker answers who prepares a peer: the models that it wrote."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """What a worker answers to each run. gpu_nbytes: None on the processor, and where untold."""

    ms: float
    gpu_nbytes: int | None
    peak_rss_nbytes: int


def work_of(kind: WorkKind, *, steps: int, size_px: int, guidance_scale: float) -> Work:
    """The boundaries are the paper's fractions, 0.3 and 0.6, in a whole trajectory."""
    common: dict[str, Any] = {
        "kind": kind, "steps": steps, "size_px": size_px, "guidance_scale": guidance_scale,
    }  # fmt: skip
    if kind is WorkKind.STEP:
        return Work(count=1, start_merge_step=-1, final_step=_NEVER, **common)
    if kind is WorkKind.SCENE:
        return Work(count=steps, start_merge_step=_NEVER, final_step=_NEVER, **common)
    paper = StageBoundaries.from_fractions(0.3, 0.6, [step / steps for step in range(steps)])
    return Work(
        count=steps,
        start_merge_step=paper.start_merge_step,
        final_step=paper.final_step,
        **common,
    )


TDM_PASSES = TDM_GUIDE.passes
SDM_PASSES = SDM_GUIDES[GuidanceRule.PAPER].passes


def rows_of(passes: tuple[Pass, ...], inputs: Mapping[str, Any], images: int) -> list[Any]:
    """Prompt embeds of each row of a U-Net call, pass-major."""
    return [inputs[each.value] for each in passes for _ in range(images)]


def load_arrays(path: str | Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def save_arrays(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    np.savez(path, **dict(arrays))  # type: ignore[arg-type]
