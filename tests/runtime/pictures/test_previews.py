"""Previews: a step's latents as small pictures by the manifest's map."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.bundle.manifest import MANIFEST_NAME, LatentPreview, Manifest
from engines.errors import BundleCorruptError, BundleError
from runtime import FaceDiffuser, Request, StepInfo
from runtime.pictures.previews import Previews
from tests.paths import GOLDEN

REFERENCE = GOLDEN / "refs" / "man1.png"
MAP = LatentPreview(
    weights=((0.5, 0.0, 0.0), (0.0, 0.25, 0.0), (0.0, 0.0, -1.0), (0.0, 0.0, 0.0)),
    bias=(0.5, 0.25, 0.5),
    mean_error=0.1,
)


def steps(bundle: Path, **changes: object) -> list[StepInfo]:
    """What on_step is told, the previews drawn while the steps are there."""
    seen: list[StepInfo] = []

    def on_step(info: StepInfo) -> None:
        assert info.latents is not None
        seen.append(info)

    with FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1) as opened:
        request = Request(
            prompt="a man <|image|>", references=[REFERENCE], num_inference_steps=3,
            seed=1, height=64, width=128, num_images=2,
        )  # fmt: skip
        opened.generate(request, on_step=on_step)
    return seen


def test_each_step_has_a_small_picture_of_every_image(golden_bundle: Path) -> None:
    for info in steps(golden_bundle):
        pictures = info.preview()
        assert [(each.mode, each.size) for each in pictures] == [("RGB", (16, 8))] * 2


def test_a_color_is_the_maps() -> None:
    latents = np.zeros((1, 4, 1, 2), np.float32)
    latents[0, :, 0, 1] = 1.0, -0.6, 0.1, 9.0
    (picture,) = Previews(bundle=Path("b"), fitted=MAP).pictures(latents)
    # Rounded to levels, and clipped to what a picture can show.
    expected = [[[128, 64, 128], [255, 26, 102]]]
    assert np.abs(np.asarray(picture, np.int32) - np.array(expected)).max() <= 1
    assert isinstance(picture, Image.Image)


def test_what_a_picture_cannot_show_is_black_or_white_and_the_rest_is_rounded() -> None:
    latents = np.zeros((1, 4, 1, 3), np.float32)
    latents[0, 0, 0] = 3.0, -3.0, 0.6 / 255  # 127.8 of 255
    (picture,) = Previews(bundle=Path("b"), fitted=MAP).pictures(latents)
    assert np.asarray(picture)[0, :, 0].tolist() == [255, 0, 128]


def test_the_map_is_near_the_decoder_on_latents_it_was_not_fitted_to(golden_bundle: Path) -> None:
    manifest = Manifest.from_json((golden_bundle / MANIFEST_NAME).read_text(), "golden")
    assert manifest.latent_preview is not None
    assert len(manifest.latent_preview.weights) == 4
    assert 0 < manifest.latent_preview.mean_error < 0.2


def test_a_bundle_of_an_earlier_build_says_so_and_keeps_its_digest(golden_bundle: Path) -> None:
    text = (golden_bundle / MANIFEST_NAME).read_text()
    manifest = dataclasses.replace(Manifest.from_json(text, "golden"), latent_preview=None)
    document = json.loads(manifest.to_json())
    assert "latent_preview" not in document
    again = Manifest.from_json(manifest.to_json(), "golden")
    assert again.digest() == document["digest"] == manifest.digest()
    with pytest.raises(BundleError, match="built without the map") as error:
        Previews(bundle=Path("old"), fitted=None).pictures(np.zeros((1, 4, 8, 8), np.float32))
    assert "export.build" in str(error.value.fix)


def test_a_map_for_other_latents_is_no_manifest(golden_bundle: Path) -> None:
    document = json.loads((golden_bundle / MANIFEST_NAME).read_text())
    del document["digest"]
    document["latent_preview"]["weights"].pop()
    with pytest.raises(BundleCorruptError, match="latent_preview has 3 channels"):
        Manifest.from_json(json.dumps(document), "golden")
