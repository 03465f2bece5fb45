"""FastComposer's guidance and delayed conditioning, against a plain twin of its sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME, NoiseSchedule
from engines.contract import Component
from engines.guides import Pass
from runtime import FaceDiffuser, Scheduler
from runtime.host.backend import HostBackend, HostStepper
from runtime.host.pool import EnginePool
from runtime.method.schedule import timesteps_of
from runtime.trajectory import Trajectory
from tests.references.fastcomposer import Array, sampled
from tests.references.scheduler import Steps
from tests.runtime.small_request import HER, HIM, small

ONE = {"prompt": "a man <|image|> in the snow", "references": [HIM]}
TWO = {"prompt": "a man <|image|> and a woman <|image|> in the snow", "references": [HIM, HER]}
STEPS = 10


@pytest.fixture(scope="module")
def one_unet(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden bundle as a FastComposer's: SDM's U-Net is all there is."""
    folder = tmp_path_factory.mktemp("fastcomposer") / "bundle"
    folder.mkdir()
    for each in golden_bundle.iterdir():
        (folder / each.name).symlink_to(each)
    manifest = Bundle.open(golden_bundle).manifest
    shared = manifest.components[Component.SDM_UNET]
    components = {**manifest.components, Component.TDM_UNET: shared}
    (folder / MANIFEST_NAME).unlink()
    (folder / MANIFEST_NAME).write_text(replace(manifest, components=components).to_json())
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def face_diffuser(one_unet: Bundle) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(one_unet.path, provider="onnxruntime-cpu", threads=1) as opened:
        yield opened


@pytest.fixture
def trajectories(monkeypatch: pytest.MonkeyPatch) -> list[Trajectory]:
    """What drawings start from: noise and prompt embeds."""
    seen: list[Trajectory] = []

    def stepper(backend: HostBackend, trajectory: Trajectory) -> HostStepper:
        seen.append(trajectory)
        return HostStepper(backend._engines, trajectory)

    monkeypatch.setattr(HostBackend, "stepper", stepper)
    return seen


@pytest.mark.parametrize("scheduler", [Scheduler.DDIM, Scheduler.PNDM])
@pytest.mark.parametrize("people", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("start_merge_step", [-1, 0, 3, STEPS])
def test_the_released_sampler_is_reproduced(
    scheduler: Scheduler,
    people: dict[str, object],
    start_merge_step: int,
    one_unet: Bundle,
    face_diffuser: FaceDiffuser,
    trajectories: list[Trajectory],
) -> None:
    found = face_diffuser.generate(
        small(
            **people, scheduler=scheduler, num_inference_steps=STEPS,
            guidance_rule="fastcomposer", start_merge_step=start_merge_step,
        )
    )  # fmt: skip
    start = trajectories[0]
    null, text, augmented = (start.embeds[each][0].astype(np.float64) for each in Pass)
    engines, schedule = EnginePool(one_unet), NoiseSchedule()

    def unet(latents: Array, timestep: int, embeds: Array) -> Array:
        inputs = {
            "latents": latents, "timestep": np.full(len(latents), timestep),
            "prompt_embeds": embeds[None],
        }  # fmt: skip
        return engines.run(Component.SDM_UNET, inputs, latents.shape).astype(np.float64)

    expected = sampled(
        unet, start.latents.astype(np.float64), null, text, augmented, scale=5.0,
        start_merge_step=start_merge_step, solver=scheduler.value,
        steps=Steps(
            schedule.alphas_cumprod(), timesteps_of(scheduler, schedule, STEPS), 1000 // STEPS
        ),
    )  # fmt: skip
    error = np.linalg.norm(found.array - expected) / np.linalg.norm(expected)
    # float32 against float64 around the same float32 U-Net.
    assert error < 1e-5
    assert found.evaluations == 2 * len(start)
    assert not found.warnings or scheduler is Scheduler.PNDM


def test_two_unets_are_said_not_to_be_fastcomposer(golden_bundle: Path) -> None:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        found = opened.generate(small(guidance_rule="fastcomposer"))
        assert "one U-Net, and this bundle has two" in found.warnings[0]
        assert not opened.generate(small(guidance_rule="released")).warnings
