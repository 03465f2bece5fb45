"""Requests drawn in one call: each gets the picture that it gets alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle.folder import Bundle
from engines.contract import NOISE_PREDICTORS, Component
from engines.engine import Array, Engine, HostPrecision, Provider
from engines.onnxruntime.cpu import open_on_cpu
from engines.openvino.cpu import open_on_openvino
from engines.tune.settings import CallTime, HostSettings
from runtime import CancelledError, FaceDiffuser, Request, RequestError, StepInfo
from runtime.inputs.together import companions
from tests.runtime.small_request import HER, HIM, small

# The runtime's own bound on latents, for engines whose results depend on the number of rows.
BOUND = 1e-4


@pytest.fixture(scope="module", params=["onnxruntime-cpu", "openvino"])
def face_diffuser(request: pytest.FixtureRequest, golden_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(golden_bundle, provider=request.param, threads=1) as opened:
        yield opened


def requests(**changes: Any) -> list[Request]:
    """One person, two pictures of another, and both, with words of their own."""
    words: dict[str, Any] = {"num_inference_steps": 10, "saliency": True, "width": 128} | changes
    both = "a man <|image|> and a woman <|image|> at sea"
    return [
        small(**words),
        small(**words, prompt="a woman <|image|>", references=[HER], seed=9, num_images=2),
        small(**words, prompt=both, references=[HIM, HER], seed=2, negative_prompt="dark"),
    ]


def distance(found: Any, wanted: Any) -> float:
    """Relative, in the Euclidean norm."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_each_gets_what_it_gets_alone(face_diffuser: FaceDiffuser) -> None:
    asked = requests()
    together = face_diffuser.generate_together(asked)
    alone = [face_diffuser.generate(each) for each in asked]
    for found, wanted in zip(together, alone, strict=True):
        assert found.array.shape == wanted.array.shape
        assert distance(found.array, wanted.array) < BOUND
        assert (found.seeds, found.request) == (wanted.seeds, wanted.request)
        assert found.evaluations == wanted.evaluations
        assert found.saliency is not None
        assert wanted.saliency is not None
        assert len(found.saliency) == len(wanted.saliency) > 0
        for mine, its_own in zip(found.saliency, wanted.saliency, strict=True):
            assert mine.step == its_own.step
            assert distance(mine.saliency.tdm, its_own.saliency.tdm) < BOUND
            assert mine.saliency.mask.shape == its_own.saliency.mask.shape
    # What a mistaken row, seed or prompt would give.
    for one in range(3):
        for other in range(3):
            if one != other:
                assert distance(together[one].array[0], alone[other].array[0]) > 0.1
    assert distance(together[1].array[0], alone[1].array[1]) > 0.1


def test_steps_are_told_of_each_request_with_its_own_latents(face_diffuser: FaceDiffuser) -> None:
    asked = requests(num_inference_steps=3, saliency=False)
    told: list[tuple[int, int]] = []
    last: dict[int, Any] = {}

    def on_step(at: int, info: StepInfo) -> None:
        told.append((info.step, at))
        last[at] = info.latents

    results = face_diffuser.generate_together(asked, on_step=on_step)
    assert told == [(step, at) for step in range(3) for at in range(3)]
    for at, result in enumerate(results):
        np.testing.assert_array_equal(last[at], result.array)
    with pytest.raises(CancelledError, match="at step 1 of 3"):
        face_diffuser.generate_together(asked, on_step=lambda at, _: at != 1)


def test_pictures_come_whole_too(face_diffuser: FaceDiffuser) -> None:
    asked = [small(seed=seed, output_type="pil") for seed in (1, 2)]
    for found, each in zip(face_diffuser.generate_together(asked), asked, strict=True):
        wanted = np.asarray(face_diffuser.generate(each).pictures[0], np.int16)
        assert len(found.pictures) == 1
        # A value at the edge of two levels may fall to either side.
        assert np.abs(np.asarray(found.pictures[0], np.int16) - wanted).max() <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": 4}, {"guidance_scale": 4.0}, {"height": 128}, {"alpha": 0.2},
        {"scheduler": "plms2"}, {"fusion": "addition"}, {"guidance_rule": "released"},
        {"output_type": "np"}, {"guidance_every": 2}, {"saliency": True}, {"final_step": 1},
    ],
)  # fmt: skip
def test_other_forms_are_not_drawn_together(
    changes: dict[str, Any], face_diffuser: FaceDiffuser
) -> None:
    asked = [small(), small(**changes)]
    with pytest.raises(RequestError, match="in common"):
        face_diffuser.generate_together(asked)
    assert companions([*asked, small(seed=7)], PAYING, 512) == (0, 2)


def call_time(**images_s: float) -> CallTime:
    settings = HostSettings(
        provider=Provider.ONNXRUNTIME_CPU, precision=HostPrecision.FLOAT32, threads=1
    )
    seconds = {int(name.removeprefix("of_")): each for name, each in images_s.items()}
    return CallTime(settings=settings, call_s=1.0, load_s=1.0, images_s=seconds)


PAYING = call_time(of_1=1.0, of_2=1.2, of_4=1.6)


def test_as_many_are_drawn_together_as_were_measured_to_pay() -> None:
    waiting = [small(seed=seed) for seed in range(6)]
    assert companions(waiting, None, 512) == (0,)
    assert companions(waiting, call_time(), 512) == (0,)
    # Nearly linear, as on a CPU.
    assert companions(waiting, call_time(of_1=1.0, of_2=1.85, of_4=3.7), 512) == (0,)
    assert companions(waiting, call_time(of_1=1.0, of_2=1.85, of_4=3.5), 512) == (0, 1, 2, 3)
    assert companions(waiting, call_time(of_1=1.0, of_2=1.7, of_4=3.9), 512) == (0, 1)
    assert companions(waiting[:3], PAYING, 512) == (0, 1, 2)
    assert companions(waiting, PAYING, 512) == (0, 1, 2, 3)
    # Larger than what was measured.
    assert companions(waiting, PAYING, 56) == (0,)
    several = [small(num_images=3), small(num_images=2), small(num_images=1)]
    assert companions(several, PAYING, 512) == (0,)
    assert companions(several[::2], PAYING, 512) == (0, 1)


@pytest.mark.parametrize("component", NOISE_PREDICTORS)
@pytest.mark.parametrize("opened", [open_on_cpu, open_on_openvino])
def test_a_call_takes_pictures_at_different_steps(
    component: Component, opened: Callable[..., Engine], golden_bundle: Path
) -> None:
    """So that a picture could join others that have begun; each has the answer that it has alone,
    in both guidance passes."""
    engine = opened(Bundle.open(golden_bundle), component, 1)
    chance = np.random.RandomState(3)
    latents = chance.standard_normal((3, 4, 16, 16)).astype(np.float32)
    embeds = chance.standard_normal((2, 3, 77, 32)).astype(np.float32)
    timesteps = np.array([981, 501, 21], np.float32)

    def answered(which: list[int], at: Array) -> Array:
        shape = (2 * len(which), 4, 16, 16)
        buffers = {
            "latents": latents[which],
            "timestep": at,
            "prompt_embeds": embeds[:, which].reshape(-1, 77, 32),
            "noise_prediction": np.zeros(shape, np.float32),
        }
        engine.bind(buffers)
        engine.enqueue()
        return buffers["noise_prediction"].reshape(2, len(which), *shape[1:])

    together = answered([0, 1, 2], timesteps)
    for image in range(3):
        alone = answered([image], timesteps[image : image + 1])[:, 0]
        assert distance(together[:, image], alone) < BOUND
        # What the timestep of its neighbor would give.
        other = answered([image], timesteps[[image - 1]])[:, 0]
        assert distance(other, alone) > 10 * BOUND
