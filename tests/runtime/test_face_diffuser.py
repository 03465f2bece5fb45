"""What an open FaceDiffuser promises around the numbers: seeds, stages, turns, and closing."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.bundle.files import file_record
from engines.bundle.folder import TOKENIZER_PATH, Bundle
from engines.bundle.manifest import MANIFEST_NAME, NoiseSchedule
from runtime import (
    BundleCorruptError,
    FaceDiffuser,
    FaceDiffuserError,
    Identity,
    ReferenceImageError,
    Request,
    RequestError,
    Stage,
    StepInfo,
)
from runtime.host.pool import EnginePool
from runtime.preparation import initial_latents
from runtime.sampler import sample
from tests.doubles.small_bundle import DIMENSIONS
from tests.doubles.small_quantized import add_quantized
from tests.runtime.small_request import HER, HIM, small


@pytest.fixture(scope="module")
def face_diffuser(small_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(small_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        yield opened


def test_without_a_seed_every_picture_is_another_and_its_seed_draws_it_again(
    face_diffuser: FaceDiffuser,
) -> None:
    results = [face_diffuser.generate(small(seed=None)) for _ in range(3)]
    # Of 2**32 seeds, two of three are equal once in a billion runs.
    assert len({result.seed for result in results}) == 3
    for result in results:
        assert result.seeds == (result.seed,)
        again = face_diffuser.generate(small(seed=result.seed))
        np.testing.assert_array_equal(again.array, result.array)
        assert again.seed == result.seed
    assert not np.array_equal(results[0].array, results[1].array)


def test_seeds_go_on_from_the_last_at_the_first(face_diffuser: FaceDiffuser) -> None:
    result = face_diffuser.generate(small(seed=2**32 - 1, num_images=2))
    assert result.seed == 2**32 - 1
    assert result.seeds == (2**32 - 1, 0)
    latents, _ = initial_latents(small(seed=2**32 - 1, num_images=2), DIMENSIONS)
    first = initial_latents(small(seed=0), DIMENSIONS)[0][0]
    np.testing.assert_array_equal(latents[1], first)
    assert latents.shape == (2, 4, 8, 8)
    assert latents.dtype == np.float32


def _stages(face_diffuser: FaceDiffuser, request: Request) -> list[int]:
    seen: list[StepInfo] = []
    face_diffuser.generate(request, on_step=seen.append)
    assert [info.step for info in seen] == list(range(len(seen)))
    assert {info.num_steps for info in seen} == {len(seen)}
    return [sum(info.stage is stage for info in seen) for stage in Stage]


def test_shares_are_of_the_steps_that_are_taken(face_diffuser: FaceDiffuser) -> None:
    """PNDM takes one step more than was asked for."""
    fields: dict[str, Any] = {"num_inference_steps": 10, "alpha": 0.5, "beta": 0.91}
    assert _stages(face_diffuser, small(**fields, scheduler="ddim")) == [5, 5, 0]
    assert _stages(face_diffuser, small(**fields, scheduler="pndm")) == [6, 5, 0]


def test_a_callback_is_told_of_every_step_and_its_latents(face_diffuser: FaceDiffuser) -> None:
    seen: list[StepInfo] = []
    found = face_diffuser.generate(small(), on_step=seen.append).array
    assert [info.timestep for info in seen] == [667, 334, 1]
    np.testing.assert_array_equal(seen[-1].latents, found)


def test_latents_that_are_read_late_are_those_of_their_step(face_diffuser: FaceDiffuser) -> None:
    """Of the host, where nothing overwrites them."""
    at_once: list[Any] = []
    later: list[StepInfo] = []

    def keep(info: StepInfo) -> None:
        later.append(info)
        at_once.append(info.read_latents())

    face_diffuser.generate(small(), on_step=keep)
    for info, expected in zip(later, at_once, strict=True):
        np.testing.assert_array_equal(info.latents, expected)


def test_a_step_count_that_the_model_does_not_know_is_refused(small_copy: Path) -> None:
    manifest = Bundle.open(small_copy).manifest
    short = replace(manifest, noise_schedule=NoiseSchedule(num_train_timesteps=10))
    (small_copy / MANIFEST_NAME).write_text(short.to_json())
    with FaceDiffuser.open(small_copy, provider="onnxruntime-cpu", threads=1) as opened:
        with pytest.raises(RequestError, match="=11 is more than the 10 timesteps"):
            opened.generate(small(num_inference_steps=11))
        with pytest.raises(RequestError, match="=10 needs timestep 10, the model knows 10"):
            opened.generate(small(num_inference_steps=10))
        assert np.isfinite(opened.generate(small(num_inference_steps=9)).array).all()


def test_an_open_that_fails_closes_what_it_opened(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, path = Bundle.open(small_copy).manifest, small_copy / TOKENIZER_PATH
    path.write_text("{}")
    files = {TOKENIZER_PATH: file_record(path)}
    (small_copy / MANIFEST_NAME).write_text(replace(manifest, files=files).to_json())
    closed: list[EnginePool] = []
    close = EnginePool.close

    def note(pool: EnginePool) -> None:
        closed.append(pool)
        close(pool)

    monkeypatch.setattr(EnginePool, "close", note)
    with pytest.raises(BundleCorruptError, match=r"tokenizer\.json is not a tokenizer"):
        FaceDiffuser.open(small_copy, provider="onnxruntime-cpu", threads=1)
    (pool,) = closed
    assert not pool._engines


def test_nothing_can_be_asked_of_what_is_closed(small_bundle: Path) -> None:
    opened = FaceDiffuser.open(small_bundle, provider="onnxruntime-cpu", threads=1)
    opened.close()
    opened.close()
    for call in (
        lambda: opened.generate(small()),
        lambda: opened.encode_reference(HIM),
        lambda: opened.warm_up(),
    ):
        with pytest.raises(FaceDiffuserError, match="is closed; open the bundle again"):
            call()


def test_only_a_request_is_drawn(face_diffuser: FaceDiffuser) -> None:
    with pytest.raises(RequestError, match=r"takes a Request, got dict.*generate\(Request\("):
        face_diffuser.generate({"prompt": "a man"})  # type: ignore[call-overload]


def test_every_reference_is_a_person_of_its_own(face_diffuser: FaceDiffuser) -> None:
    prompt = "a man <|image|> and a woman <|image|>"
    fields: dict[str, Any] = {"prompt": prompt, "alpha": 0.0, "beta": 0.0}
    pictures = [
        face_diffuser.generate(small(references=people, **fields)).array
        for people in ([HIM, HER], [HER, HIM], [HIM, HIM])
    ]
    assert not np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[1], pictures[2])


def test_the_resolution_of_a_photo_is_the_requests(face_diffuser: FaceDiffuser) -> None:
    identity = face_diffuser.encode_reference(HIM, reference_resolution=64)
    assert identity.reference_resolution == 64
    assert face_diffuser.encode_reference(HIM).reference_resolution == 512
    other = face_diffuser.encode_reference(HIM, reference_resolution=32)
    assert not np.array_equal(identity.embeds, other.embeds)
    by_photo = face_diffuser.generate(small(reference_resolution=64))
    by_identity = face_diffuser.generate(small(references=[identity]))
    np.testing.assert_array_equal(by_photo.array, by_identity.array)
    with pytest.raises(RequestError, match="reference_resolution must be from 1"):
        face_diffuser.encode_reference(HIM, reference_resolution=0)


def test_an_identity_of_another_width_is_refused(face_diffuser: FaceDiffuser) -> None:
    identity = face_diffuser.encode_reference(HIM)
    wide = Identity(
        embeds=np.zeros(9, np.float32), encoder=identity.encoder, reference_resolution=512
    )
    with pytest.raises(ReferenceImageError, match=r"is 9 numbers wide, .* gives 8"):
        face_diffuser.generate(small(references=[wide]))


def test_a_result_says_what_was_drawn_and_from_what(
    face_diffuser: FaceDiffuser, small_bundle: Path
) -> None:
    request = small(prompt="a man <|image|>" + " and snow" * 60, negative_prompt="rain " * 90)
    result = face_diffuser.generate(request)
    assert (result.provider, result.request) == ("onnxruntime-cpu", request)
    assert result.bundle == Bundle.open(small_bundle).manifest.digest()
    assert set(result.unread) == {"prompt", "negative_prompt"}
    assert result.unread["prompt"].endswith("and snow")
    assert result.saliency is None
    assert face_diffuser.generate(small()).unread == {}
    assert face_diffuser.native_px == 64
    assert face_diffuser.generate(small(height=None, width=None)).array.shape == (1, 4, 8, 8)


def test_a_negative_prompt_steers_the_scene(face_diffuser: FaceDiffuser) -> None:
    plain, other = (
        face_diffuser.generate(small(negative_prompt=text, alpha=1.0, beta=1.0)).array
        for text in ("", "rain")
    )
    assert not np.array_equal(plain, other)


def test_the_guidance_scale_reaches_the_steps(face_diffuser: FaceDiffuser) -> None:
    weak, strong = (face_diffuser.generate(small(guidance_scale=s)).array for s in (2.0, 9.0))
    assert not np.array_equal(weak, strong)


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"guidance_scale": 20.5}, "guidance_scale of 20.5"),
        ({"latents": np.full((1, 4, 8, 8), 11, np.float32)}, "latents, which reach 11"),
        ({"guidance_scale": 20.0}, None),
        ({"latents": np.full((1, 4, 8, 8), -10, np.float32)}, None),
    ],
)
def test_what_is_unusual_in_a_request_is_blamed_for_infinities(
    fields: dict[str, Any], blamed: str | None, face_diffuser: FaceDiffuser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def overflows(*_: Any, **__: Any) -> Any:
        return np.full((1, 4, 8, 8), np.inf, np.float32)

    monkeypatch.setattr("runtime.host.backend.updated_latents", overflows)
    fields = {"height": None, "width": None} | fields
    with pytest.raises(FaceDiffuserError, match=r"infinity|not finite") as error:
        face_diffuser.generate(small(**fields))
    assert ("is the likely cause" in str(error.value)) is (blamed is not None)
    assert (blamed or "") in str(error.value)


def test_the_kind_of_8_bits_that_is_asked_for_draws_and_is_told(small_copy: Path) -> None:
    add_quantized(small_copy)
    pictures: dict[str | None, Any] = {}
    for asked in (None, "int8", "fp8"):
        with FaceDiffuser.open(
            small_copy, provider="onnxruntime-cpu", threads=1, quantization=asked
        ) as opened:
            result = opened.generate(small(output_type="pil"))
            pictures[asked] = opened.generate(small()).array
        assert result.quantization == asked
        assert result.metadata().get("quantization") == asked
    for one, other in itertools.combinations(pictures.values(), 2):
        assert not np.array_equal(one, other)
        # Convolutions are in INT8 in both; matrices are near.
        np.testing.assert_allclose(one, other, atol=0.3 * np.abs(one).max())
    with pytest.raises(RequestError, match="one of int8, fp8"):
        FaceDiffuser.open(small_copy, quantization="int4")


def _another_model(bundle: Path) -> Path:
    """Other weights of the same sizes everywhere, in a bundle that is whole."""
    manifest, records = Bundle.open(bundle).manifest, {}
    for component, record in manifest.components.items():
        path = bundle / "onnx" / f"{component}.data"
        path.write_bytes(np.frombuffer(path.read_bytes(), np.float16)[::-1].tobytes())
        files = record.files | {f"onnx/{component}.data": file_record(path)}
        records[component] = replace(record, files=files)
    (bundle / MANIFEST_NAME).write_text(replace(manifest, components=records).to_json())
    return bundle


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("how", ["folder", "files"])
def test_a_bundle_replaced_underneath_an_open_one_draws_as_before_or_raises(
    *, how: str, low_memory: bool, small_bundle: Path, small_copy: Path, tmp_path: Path
) -> None:
    other = _another_model(Path(shutil.copytree(small_bundle, tmp_path / "other")))
    with FaceDiffuser.open(
        small_copy, provider="onnxruntime-cpu", threads=1, low_memory=low_memory
    ) as opened:
        before = opened.generate(small()).array
        if how == "folder":
            small_copy.replace(tmp_path / "old")
            other.replace(small_copy)
        else:
            for path in (other / "onnx").iterdir():
                path.replace(small_copy / "onnx" / path.name)
            (other / MANIFEST_NAME).replace(small_copy / MANIFEST_NAME)
        for _ in range(2):
            if low_memory:
                with pytest.raises(BundleCorruptError, match=r"\.data was altered"):
                    opened.generate(small())
            else:
                np.testing.assert_array_equal(opened.generate(small()).array, before)
    with FaceDiffuser.open(small_copy, provider="onnxruntime-cpu", threads=1) as opened:
        assert not np.array_equal(opened.generate(small()).array, before)


def test_several_requests_are_drawn_as_each_alone(face_diffuser: FaceDiffuser) -> None:
    prompts = ["a man <|image|> in the snow", "a man <|image|> at sea"]
    words: dict[str, Any] = {
        "num_inference_steps": 3, "seed": 5, "height": 64, "width": 64, "output_type": "latent",
    }  # fmt: skip
    requests = Request.each(prompts, [HIM], **words)
    assert [each.prompt for each in requests] == prompts
    results = face_diffuser.generate(requests)
    for result, request in zip(results, requests, strict=True):
        assert result.request is request
        np.testing.assert_array_equal(result.array, face_diffuser.generate(request).array)
    assert not np.array_equal(results[0].array, results[1].array)


def test_of_several_requests_none_is_drawn_before_all_words_are_right(
    face_diffuser: FaceDiffuser,
) -> None:
    steps: list[StepInfo] = []
    with pytest.raises(RequestError, match="0 <"):
        face_diffuser.generate([small(), small(prompt="nobody")], on_step=steps.append)
    with pytest.raises(RequestError, match="expected a Request, got str"):
        face_diffuser.generate([small(), "a man"], on_step=steps.append)  # type: ignore[list-item]
    assert steps == []
    with pytest.raises(RequestError, match="list of texts"):
        Request.each("a man <|image|>", [HIM])


def test_pictures_and_array_are_what_was_asked_for(face_diffuser: FaceDiffuser) -> None:
    drawn = face_diffuser.generate(small(output_type="pil"))
    assert drawn.pictures is drawn.images
    latents = face_diffuser.generate(small())
    with pytest.raises(RequestError, match="pictures needs pictures"):
        _ = latents.pictures


def test_a_run_that_is_no_longer_wanted_ends_before_its_next_step() -> None:
    """Without anybody who hears of the steps."""
    taken: list[int] = []
    stepper: Any = SimpleNamespace(scene=taken.append, subject=taken.append)
    trajectory: Any = SimpleNamespace(stages=lambda: [Stage.SCENE, Stage.SUBJECT, Stage.SUBJECT])

    def still_wanted() -> None:
        if len(taken) == 2:
            raise RuntimeError("closed")

    with pytest.raises(RuntimeError, match="closed"):
        sample(trajectory, stepper, still_wanted=still_wanted)
    assert taken == [0, 1]
