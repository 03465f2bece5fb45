"""One step of the kernels on made-up data: inputs, launches, and what must come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engines.bundle.manifest import NoiseSchedule
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule, Guide
from kernels.variants import VARIANTS
from runtime.method.schedule import Column, coefficient_table
from runtime.method.solvers import Scheduler
from tests.references import guidance as guidance_reference

FloatArray = npt.NDArray[np.floating]

SCALE = 5.0
STEPS = 8
LATE_STEP = 6  # all of PNDM's history is in use
SCHEDULE = NoiseSchedule()
Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
SDM_REFERENCES: dict[GuidanceRule, Callable[..., Pair]] = {
    GuidanceRule.PAPER: guidance_reference.sdm_guided_paper,
    GuidanceRule.RELEASED: guidance_reference.sdm_guided_released,
}
BY_NAME = {variant.name: variant for variant in VARIANTS}


class Data(Enum):
    """How two models' noise predictions relate."""

    WHITE = "white"
    CORRELATED = "correlated"
    NEAR_TIE = "near tie"
    TIE = "tie"


@dataclass
class Trial:
    """Predictions as the engines give them, float32 latents and history, one table."""

    tdm: torch.Tensor  # [2 * images, 4, h, w]
    sdm: torch.Tensor  # [passes * images, 4, h, w]
    rule: GuidanceRule
    latents: torch.Tensor
    history: torch.Tensor
    table: torch.Tensor

    @property
    def sdm_guide(self) -> Guide:
        return SDM_GUIDES[self.rule]

    @property
    def row(self) -> FloatArray:
        return self.table[LATE_STEP].double().numpy()

    def guided(self) -> tuple[Pair, Pair]:
        """Both models' (guided noise, guidance), float64, from the values the engines gave."""
        tdm = self.tdm.double().reshape(2, *self.latents.shape).numpy()
        sdm = self.sdm.double().reshape(-1, *self.latents.shape).numpy()
        guided_tdm = guidance_reference.tdm_guided(tdm[0], tdm[1], SCALE)
        return guided_tdm, SDM_REFERENCES[self.rule](*sdm, SCALE)

    def stepped(self, noise: FloatArray) -> FloatArray:
        """What the latents must become, float64, from the late row's own float32 numbers."""
        weights = self.row[Column.HISTORY_0 : Column.HISTORY_0 + 3]
        kept = np.tensordot(weights, self.history.double().numpy(), axes=1)
        stepped: FloatArray = (
            self.row[0] * self.latents.double().numpy() + self.row[1] * noise + kept
        )
        return stepped


def trial(
    data: Data,
    size: tuple[int, int, int],
    *,
    dtype: torch.dtype = torch.float16,
    rule: GuidanceRule = GuidanceRule.PAPER,
    scheduler: Scheduler = Scheduler.PNDM,
    seed: int = 0,
) -> Trial:
    """size: images, h, w."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size[0], 4, *size[1:])

    def noise() -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    null, text, augmented = noise(), noise(), noise()
    if data is Data.CORRELATED:
        text, augmented = null + 0.1 * text, null + 0.1 * text + 0.1 * augmented
    if data is Data.NEAR_TIE:
        augmented = text + (text - null) * (1 + 1e-3 * augmented)
    if data is Data.TIE:
        # The same guidance with the sign turned, exactly, whatever the type.
        text, augmented = text.to(dtype), null.to(dtype)
    sdm = [null, text, augmented] if rule is GuidanceRule.PAPER else [text, augmented]
    table = coefficient_table(scheduler, SCHEDULE, STEPS, SCALE)
    return Trial(
        tdm=torch.cat([null.to(dtype), text.to(dtype)]),
        sdm=torch.cat([part.to(dtype) for part in sdm]),
        rule=rule,
        latents=noise(),
        history=torch.stack([noise(), noise(), noise()]),
        table=torch.from_numpy(table),
    )


@dataclass
class Output:
    """Buffers of one step, filled with NaN (or 255) before it."""

    latents: torch.Tensor
    engine_latents: torch.Tensor
    history: torch.Tensor
    tdm: torch.Tensor
    sdm: torch.Tensor
    mask: torch.Tensor
    clock: torch.Tensor
    timestep: torch.Tensor
    faults: torch.Tensor

    @classmethod
    def before(cls, trial: Trial) -> Output:
        images, _, height, width = trial.latents.shape
        maps = torch.full((2, images, height, width), float("nan"))
        return cls(
            latents=trial.latents.clone(),
            engine_latents=torch.full_like(trial.latents, float("nan"), dtype=trial.tdm.dtype),
            history=trial.history.clone(),
            tdm=maps[0],
            sdm=maps[1],
            mask=torch.full((images, height, width), 255, dtype=torch.uint8),
            clock=torch.tensor([LATE_STEP, 0], dtype=torch.int32),
            timestep=torch.full((images,), float("nan")),
            faults=torch.zeros(4, dtype=torch.int32),
        )


def roles(guide: Guide) -> tuple[int, int, int]:
    return guide.start, guide.base, guide.target


def launched(name: str, grid: tuple[int, ...], *arguments: Any) -> None:
    """Run one variant as the cubins have it."""
    variant = BY_NAME[name]
    variant.kernel[grid](*arguments, **variant.constants)


def fusion(trial: Trial, *, keep_saliency: bool = True) -> Output:
    """The fusion stage's two launches."""
    out = Output.before(trial)
    images, _, height, width = trial.latents.shape
    tiles = -(-height // 4)
    sums = torch.full((images, 4, tiles), float("nan"))
    columns = next(c for c in (64, 128, 256) if c >= width)
    launched(
        f"fusion_saliency_w{columns}",
        (tiles, images),
        *(trial.tdm, trial.sdm, out.tdm, out.sdm, sums, trial.table, out.clock),
        *roles(TDM_GUIDE)[1:],
        *roles(trial.sdm_guide)[1:],
        *(height, width, height * width),
    )
    blend(trial, out, sums, tiles, keep_saliency=keep_saliency)
    return out


def addition(trial: Trial) -> Output:
    """The ablation: the second launch alone."""
    out = Output.before(trial)
    blend(trial, out, torch.full((1,), float("nan")), 0, keep_saliency=True)
    return out


def blend(
    trial: Trial, out: Output, sums: torch.Tensor, tiles: int, *, keep_saliency: bool
) -> None:
    images, _, height, width = trial.latents.shape
    launched(
        "fusion_blend",
        (-(-height * width // 256), images),
        *(trial.tdm, trial.sdm, out.latents, out.engine_latents, out.history),
        *(out.tdm, out.sdm, sums, out.mask, trial.table, out.clock, out.timestep, out.faults),
        *roles(TDM_GUIDE),
        *roles(trial.sdm_guide),
        *(height * width, tiles, int(keep_saliency)),
    )
