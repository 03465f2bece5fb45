"""Whole trajectories through the launcher, interpreted, against the host's own loop in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.snf.check import KernelMismatchError, check
from benchmarks.snf.trial import KernelTrial
from engines.bundle.manifest import NoiseSchedule
from engines.cuda.launcher import opened_library
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule
from runtime.gpu.kernels import LatentsSize, Model, StepBuffers, StepKernels
from runtime.method.guidance import guided
from runtime.method.saliency import Fusion, fused_by_addition, fused_by_saliency
from runtime.method.schedule import (
    HISTORY_SLOTS,
    Stage,
    StageBoundaries,
    coefficient_table,
    device_table,
    updated_latents,
)
from runtime.method.solvers import Scheduler
from tests.kernels.interpreter import Interpreter, interpreter

STEPS, SCALE = 6, 5.0
GUIDES = (TDM_GUIDE, SDM_GUIDES[GuidanceRule.PAPER])


class Buffers:
    """Device memory of a trajectory: zeros where a trajectory starts with zeros, else NaN."""

    def __init__(self, size: LatentsSize, table: np.ndarray, latents: torch.Tensor) -> None:
        maps = (size.images, size.height, size.width)
        self.latents = latents.clone()
        self.engine_latents = torch.full_like(latents, float("nan"), dtype=torch.float16)
        self.history = torch.full((HISTORY_SLOTS, *latents.shape), float("nan"))
        self.delta = torch.full(latents.shape, float("nan"))
        self.table = torch.from_numpy(device_table(table))
        self.clock = torch.zeros(2, dtype=torch.int32)
        self.timestep = torch.full((size.images,), float("nan"))
        self.faults = torch.zeros(4, dtype=torch.int32)
        self.tdm_saliency, self.sdm_saliency = torch.full((2, *maps), float("nan"))
        self.mask = torch.full(maps, 255, dtype=torch.uint8)
        self.sums = torch.full((size.images * size.height,), float("nan"))
        self.tdm = torch.zeros((2 * size.images, *latents.shape[1:]), dtype=torch.float16)
        self.sdm = torch.zeros((3 * size.images, *latents.shape[1:]), dtype=torch.float16)

    def addresses(self) -> StepBuffers:
        names = StepBuffers.__dataclass_fields__
        return StepBuffers(**{name: getattr(self, name).data_ptr() for name in names})


@pytest.mark.parametrize("fusion", Fusion)
@pytest.mark.parametrize("scheduler", Scheduler)
def test_one_set_of_launches_serves_every_step(
    tmp_path: Path, scheduler: Scheduler, fusion: Fusion
) -> None:
    size = LatentsSize(images=2, height=8, width=24)
    generator = torch.Generator().manual_seed(0)
    initial = torch.randn((2, 4, 8, 24), generator=generator)
    table = coefficient_table(scheduler, NoiseSchedule(), STEPS, SCALE)
    buffers = Buffers(size, table, initial)
    driver = interpreter(tmp_path)
    driver.remember(buffers)
    stages = StageBoundaries.from_fractions(0.3, 0.6, [step / STEPS for step in range(STEPS)])
    latents, history = initial.numpy(), np.zeros((HISTORY_SLOTS, *initial.shape), np.float32)

    with opened_library(tmp_path, 90, driver) as library:
        kernels = StepKernels(
            library, size, buffers.addresses(), table_rows=len(buffers.table), steps=len(table)
        )
        tdm, sdm = buffers.tdm.data_ptr(), buffers.sdm.data_ptr()
        launches = {
            Stage.SCENE: kernels.guided(tdm, GUIDES[0], Model.TDM),
            Stage.FUSION: kernels.fusion((tdm, sdm), GUIDES, fusion),
            Stage.SUBJECT: kernels.guided(sdm, GUIDES[1], Model.SDM),
        }
        for step, row in enumerate(table):
            for prediction in (buffers.tdm, buffers.sdm):
                prediction.copy_(torch.randn(prediction.shape, generator=generator))
            for launch in launches[stages.stage(step)]:
                launch.enqueue(0)
            noise = host_noise(buffers, stages.stage(step), fusion)
            latents = updated_latents(latents, noise, history, row)
            assert buffers.clock.tolist() == [step + 1, 0]
    # Some 10 float32 roundings a step, on either side, of values up to about 100.
    tolerance = 2 * 10 * len(table) * 100 * 2.0**-24
    np.testing.assert_allclose(buffers.latents.numpy(), latents, rtol=0, atol=tolerance)
    assert torch.equal(buffers.engine_latents, buffers.latents.half())


def host_noise(buffers: Buffers, stage: Stage, fusion: Fusion) -> np.ndarray:
    """The noise the CPU backend takes from the same predictions."""
    tdm = guided(buffers.tdm.numpy(), GUIDES[0], SCALE)
    sdm = guided(buffers.sdm.numpy(), GUIDES[1], SCALE)
    if stage is not Stage.FUSION:
        return (tdm if stage is Stage.SCENE else sdm).noise
    if fusion is Fusion.ADDITION:
        return fused_by_addition(tdm, sdm)
    return fused_by_saliency(tdm, sdm)[0]


@pytest.fixture
def driver(tmp_path: Path) -> Interpreter:
    return interpreter(tmp_path)


@pytest.mark.parametrize("area", [(64, 64), (8, 72)])
def test_the_benchmarks_own_check_passes(
    tmp_path: Path, driver: Interpreter, area: tuple[int, int]
) -> None:
    size = LatentsSize(images=1, height=area[0], width=area[1])
    with opened_library(tmp_path, 90, driver) as library:
        trial = KernelTrial(library, size, device="cpu")
        driver.remember(trial)
        check(trial)


def test_the_benchmarks_own_check_finds_a_wrong_kernel(tmp_path: Path, driver: Interpreter) -> None:
    size = LatentsSize(images=1, height=8, width=8)
    with opened_library(tmp_path, 90, driver) as library:
        trial = KernelTrial(library, size, device="cpu")
        driver.remember(trial)
        # Stands for a kernel that mistakes the models.
        driver.memory[trial.sdm.data_ptr()] = trial.tdm
        with pytest.raises(KernelMismatchError, match="nothing was timed"):
            check(trial)
