"""Nothing of a photo or an embedding is in a message or a repr."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime import FaceDiffuser, Identity, OutputType, ReferenceImageError, Request, RequestError
from runtime.inputs.photo import load_reference

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    "source",
    [
        png()[:200],
        png()[1:],
        bytearray(png()[:60]),
        base64.b64encode(png()).decode(),
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        PHOTO[..., 0],
    ],
)
def test_a_refused_photo_is_not_repeated(source: Any) -> None:
    with pytest.raises((ReferenceImageError, RequestError)) as error:
        load_reference(source)
    assert len(str(error.value)) < 300
    assert "iVBOR" not in str(error.value)
    assert "\\x" not in str(error.value)


def test_reprs_tell_kinds_and_sizes_alone() -> None:
    embeds = np.linspace(-1.23456, 1.23456, 32, dtype=np.float32)
    identity = Identity(embeds=embeds, encoder="abc", reference_resolution=256)
    request = Request(
        prompt="a man <|image|> and <|image|>", references=[PHOTO, identity], seed=3,
        latents=np.full((1, 4, 8, 8), 0.123, np.float32),
    )  # fmt: skip
    assert repr(identity) == "Identity(32 numbers, encoder='abc', reference_resolution=256)"
    assert "['ndarray', 'Identity']" in repr(request)
    assert "float32 [1, 4, 8, 8]" in repr(request)
    for text in (repr(identity), repr(request)):
        assert "1.23" not in text
        assert "0.123" not in text


def test_a_results_repr_shows_no_picture(golden_bundle: Path) -> None:
    request = Request(
        prompt="a man <|image|>", references=[PHOTO], num_inference_steps=1, height=64, width=64,
        seed=2, output_type=OutputType.NP,
    )  # fmt: skip
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as face_diffuser:
        result = face_diffuser.generate(request)
        assert repr(result).startswith("Result(1 images in a ndarray, seed=2")
        assert "request" not in repr(result)
        with pytest.raises(RequestError, match="takes a Request, got str"):
            face_diffuser.generate("a man")  # type: ignore[arg-type]
