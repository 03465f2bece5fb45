"""The runtime against whole runs of the released code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime import (
    CancelledError,
    FaceDiffuser,
    GuidanceRule,
    Identity,
    OutputType,
    ReferenceImageError,
    Request,
    RequestError,
    Scheduler,
    StepInfo,
)
from tests.paths import GOLDEN

REFERENCES = (GOLDEN / "refs" / "man1.png", GOLDEN / "refs" / "woman2.png")
CAPTION = "a man <|image|> reading a book in the snow"


@pytest.fixture(scope="module")
def face_diffuser(golden_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(golden_bundle) as opened:
        yield opened


def small(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "prompt": CAPTION, "references": REFERENCES[:1], "num_inference_steps": 4, "seed": 5,
        "height": 128, "width": 64, "output_type": OutputType.LATENT,
    }  # fmt: skip
    return Request(**(fields | changes))


def relative_l2(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("case", ["s1_ddim10", "s2_ddim10", "s2_pndm10"])
def test_a_released_run_is_reproduced(case: str, face_diffuser: FaceDiffuser) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    subjects, scheduler = int(case[1]), Scheduler(case[3:7])
    result = face_diffuser.generate(
        Request(
            prompt=str(golden["caption"]),
            references=REFERENCES[:subjects],
            num_inference_steps=int(golden["num_inference_steps"]),
            guidance_scale=float(golden["guidance_scale"]),
            start_merge_step=int(golden["start_merge_step"]),
            final_step=int(golden["final_step"]),
            seed=int(golden["seed"]),
            scheduler=scheduler,
            guidance_rule=GuidanceRule.RELEASED,
            reference_resolution=256,
            height=512,
            width=512,
            output_type=OutputType.LATENT,
            saliency=True,
        )
    )
    assert result.saliency is not None
    assert [each.step for each in result.saliency] == golden["fusion_index"].tolist()
    bits = np.unpackbits(golden["mask_packed"])[: golden["mask_shape"].prod()]
    masks = np.stack([each.saliency.mask for each in result.saliency])
    # Every margin of these runs is above 1e-6, so every pixel must be the same.
    assert golden["saliency_min_rel_margin"].min() > 1e-6
    np.testing.assert_array_equal(masks, bits.reshape(golden["mask_shape"]).astype(bool))
    # fp32 against fp32 on other kernels: 2e-6 seen, the house's bound is 1e-4.
    assert relative_l2(result.array, golden["final_latents"]) < 1e-4


def test_an_identity_is_the_released_image_embedding(face_diffuser: FaceDiffuser) -> None:
    golden = np.load(GOLDEN / "s2_ddim10.npz")["object_embeds"][0, :, 0]
    for reference, expected in zip(REFERENCES, golden, strict=True):
        identity = face_diffuser.encode_reference(reference, reference_resolution=256)
        # One grey level of a few resized pixels may round the other way: 2e-6 seen.
        np.testing.assert_allclose(identity.embeds, expected, atol=1e-4)


def test_a_saved_identity_draws_the_same_picture(
    face_diffuser: FaceDiffuser, tmp_path: Path
) -> None:
    identity = face_diffuser.encode_reference(REFERENCES[0])
    identity.save(tmp_path / "him.safetensors")
    loaded = Identity.load(tmp_path / "him.safetensors")
    first = face_diffuser.generate(small()).array
    np.testing.assert_array_equal(first, face_diffuser.generate(small(references=[loaded])).array)


def test_an_identity_of_another_encoder_is_refused(face_diffuser: FaceDiffuser) -> None:
    unlisted = Identity(embeds=np.zeros(32, np.float32), encoder="other", reference_resolution=512)
    with pytest.raises(ReferenceImageError, match="another image encoder"):
        face_diffuser.generate(small(references=[unlisted]))


@pytest.mark.parametrize("scheduler", list(Scheduler))
@pytest.mark.parametrize("rule", list(GuidanceRule))
def test_pictures_do_not_depend_on_how_many_share_the_call(
    scheduler: Scheduler, rule: GuidanceRule, face_diffuser: FaceDiffuser
) -> None:
    shared = {"scheduler": scheduler, "guidance_rule": rule}
    together = face_diffuser.generate(small(num_images=2, **shared))
    assert together.seeds == (5, 6)
    for image, seed in enumerate(together.seeds):
        alone = face_diffuser.generate(small(seed=seed, **shared)).array[0]
        # Matrix products of other sizes add in another order: a few ulp per step.
        assert relative_l2(together.array[image], alone) < 1e-4


def test_addition_and_saliency_differ_only_from_the_fusion_stage_on(
    face_diffuser: FaceDiffuser,
) -> None:
    steps: dict[str, list[npt.NDArray[np.float32]]] = {"saliency": [], "addition": []}
    for fusion, latents in steps.items():
        face_diffuser.generate(
            small(fusion=fusion, start_merge_step=1, final_step=2),
            on_step=lambda info, kept=latents: kept.append(info.latents.copy()),  # type: ignore[misc]
        )
    pairs = list(zip(steps["saliency"], steps["addition"], strict=True))
    assert [np.array_equal(a, b) for a, b in pairs] == [True, True, False, False]


def test_returning_false_cancels(face_diffuser: FaceDiffuser) -> None:
    seen: list[StepInfo] = []

    def stop_at_second(info: StepInfo) -> bool:
        seen.append(info)
        return info.step < 1

    with pytest.raises(CancelledError, match="step 2 of 4"):
        face_diffuser.generate(small(), on_step=stop_at_second)
    assert [info.stage.value for info in seen] == ["scene", "scene"]


def test_saliency_maps_sum_to_one_and_masks_cover_the_picture(face_diffuser: FaceDiffuser) -> None:
    result = face_diffuser.generate(small(saliency=True, alpha=0.0, beta=1.0))
    assert result.saliency is not None
    assert len(result.saliency) == 4
    for step in result.saliency:
        assert step.saliency.mask.shape == (1, 16, 8)
        for each in (step.saliency.tdm, step.saliency.sdm):
            # 128 float32 terms: the sum's rounding stays far below 1e-5.
            assert each.sum() == pytest.approx(1, abs=1e-5)


def test_pictures_arrays_and_timings_are_given_back(face_diffuser: FaceDiffuser) -> None:
    pictures = face_diffuser.generate(small(output_type="pil", num_images=2))
    assert [picture.size for picture in pictures.pictures] == [(64, 128)] * 2
    array = face_diffuser.generate(small(output_type="np")).array
    assert array.shape == (1, 128, 64, 3)
    np.testing.assert_allclose(
        np.asarray(pictures.pictures[0]) / 255, array[0], atol=0.5 / 255 + 1e-5
    )
    parts = {"text", "references", "scene", "fusion", "subject", "decode", "total"}
    assert set(pictures.timings_ms) == parts


def test_low_memory_draws_the_same_picture(
    golden_bundle: Path, face_diffuser: FaceDiffuser
) -> None:
    with FaceDiffuser.open(golden_bundle, low_memory=True) as frugal:
        found = frugal.generate(small()).array
    np.testing.assert_array_equal(found, face_diffuser.generate(small()).array)


def test_latents_of_another_models_channels_are_refused(face_diffuser: FaceDiffuser) -> None:
    with pytest.raises(RequestError, match="channels"):
        face_diffuser.generate(small(latents=np.zeros((1, 3, 16, 8), np.float32)))
