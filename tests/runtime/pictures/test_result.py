"""What a result does with its pictures: files, arrays, saliency laid over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime import Request, RequestError, Result, Saliency, SaliencySteps, StepSaliency

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)


def saliency() -> Saliency:
    """TDM is salient at the left, SDM at the right, one image of 2x2 places."""
    left = np.array([[[0.4, 0.1], [0.4, 0.1]]], np.float32)
    return Saliency(tdm=left, sdm=left[..., ::-1], mask=left < 0.2)


def result(images: Any = None, **changes: Any) -> Result:
    if images is None:
        images = [Image.new("RGB", (8, 8), (9, 9, 9)) for _ in range(2)]
    request = Request(prompt="a secret <|image|>", references=["him.png"], num_images=len(images))
    step = StepSaliency(step=15, timestep=681, saliency=saliency())
    words: dict[str, Any] = {
        "images": images, "seed": 7, "seeds": (7, 8), "timings_ms": {}, "provider": "test",
        "bundle": "b" * 64, "request": request, "unread": {}, "warnings": (), "evaluations": 1,
        "saliency": SaliencySteps([step], images),
    }  # fmt: skip
    return Result(**(words | changes))


def test_all_pictures_are_saved_with_numbers_and_what_made_them(tmp_path: Path) -> None:
    paths = result().save_all(tmp_path / "park.png")
    assert paths == [tmp_path / "park-0.png", tmp_path / "park-1.png"]
    for seed, path in zip((7, 8), paths, strict=True):
        with Image.open(path) as picture:
            assert np.asarray(picture).tolist() == np.full((8, 8, 3), 9).tolist()
            told = json.loads(picture.info["face-diffuser"])
        assert told["seed"] == seed
        assert told["bundle"] == "b" * 64
        assert "secret" not in path.read_bytes().decode("latin-1")


def test_one_picture_keeps_its_name_and_may_tell_nothing(tmp_path: Path) -> None:
    one = result([Image.new("RGB", (8, 8))])
    assert one.save_all(str(tmp_path / "a.png"), with_metadata=False) == [tmp_path / "a.png"]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info == {}


def test_nothing_is_written_where_one_name_is_taken_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "park-1.png").mkdir()
    with pytest.raises(RequestError, match="is a folder"):
        result().save_all(tmp_path / "park.png")
    assert [path.name for path in tmp_path.iterdir()] == ["park-1.png"]


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"name it \.png"):
        result().save_all(tmp_path / "park.nonsense")
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_no_pictures_and_pictures_no_array(tmp_path: Path) -> None:
    array = np.zeros((2, 8, 8, 3), np.float32)
    assert result(array).array is array
    with pytest.raises(RequestError, match='output_type="pil"'):
        result(array).save_all(tmp_path / "park.png")
    with pytest.raises(RequestError, match='output_type="np" or "latent"'):
        _ = result().array


def test_the_mask_colors_each_side_by_the_model_it_was_taken_from() -> None:
    maps = result().saliency
    assert maps is not None
    shown = np.asarray(maps.overlay(), np.int64)
    assert shown.shape == (8, 8, 3)
    left, right = shown[:, :4], shown[:, 4:]
    for side, color in ((left, BLUE), (right, ORANGE)):
        expected = 9 + (np.array(color) - 9) * 0.4
        np.testing.assert_allclose(side, np.broadcast_to(expected, side.shape), atol=2)


def test_a_model_is_shown_strongest_where_it_is_most_salient() -> None:
    maps = result().saliency
    assert maps is not None
    tdm, sdm = (np.asarray(maps.overlay(shown=shown), np.int64) for shown in ("tdm", "sdm"))
    for picture, peak, least, color in ((tdm, 0, 7, BLUE), (sdm, 7, 0, ORANGE)):
        at_peak = 9 + (np.array(color) - 9) * 0.85
        np.testing.assert_allclose(picture[4, peak], at_peak, atol=2)
        np.testing.assert_allclose(picture[4, least], 9, atol=2)


def test_what_cannot_be_shown_is_said() -> None:
    maps = result().saliency
    assert maps is not None
    with pytest.raises(RequestError, match='"mask", "tdm" or "sdm"'):
        maps.overlay(shown="both")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="no step fused by saliency"):
        SaliencySteps([], []).overlay()
    with pytest.raises(RequestError, match='output_type="pil"'):
        SaliencySteps(maps, np.zeros((1, 4, 1, 1), np.float32)).overlay()
