"""Nothing of a photo or an embedding is in a message or a repr."""

from __future__ import annotations

import base64
import io
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.threads import checked_threads
from runtime import (
    FaceDiffuser,
    FaceDiffuserError,
    Identity,
    OutputType,
    ReferenceImageError,
    Request,
    RequestError,
)
from runtime.inputs.photo import load_reference
from runtime.request import check_reference_resolution

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
            face_diffuser.generate("a man")  # type: ignore[call-overload]


# Levels and numbers that a message would show as digits nobody else writes.
MARKED = np.full((40, 40, 3), 217, np.uint8)
EMBEDS = np.full(32, 0.61803, np.float32)


def plain_ppm(last: str) -> bytes:
    """A picture written as text, which decoders quote."""
    return b"P3\n40 40\n255\n" + b"217 " * (40 * 40 * 3 - 1) + last.encode()


def with_wrong(field: str, value: Any) -> Callable[[], Any]:
    words = {"prompt": "a man <|image|>", "references": [MARKED], field: value}
    return lambda: Request(**words)


@pytest.mark.parametrize(
    "wrong",
    [
        *(with_wrong(field, value)
          for field in Request.__dataclass_fields__ if field != "references"
          for value in (MARKED, EMBEDS, MARKED.tolist()) if field != "latents"),
        with_wrong("latents", MARKED),
        with_wrong("latents", MARKED[None].astype(np.float32)[:, :, :, :3] * 1e6),
        with_wrong("references", [MARKED.tolist()]),
        with_wrong("references", [MARKED[..., 0]]),
        with_wrong("references", MARKED),
        lambda: load_reference(plain_ppm("217217217217217217")),
        lambda: load_reference(plain_ppm("21721z")),
        lambda: load_reference(plain_ppm("217x" * 30)),
        lambda: load_reference(MARKED.astype(np.float32)),
        lambda: load_reference(MARKED.tolist()),
        lambda: Identity(embeds=EMBEDS.astype(float), encoder="a", reference_resolution=1),
        lambda: Identity(embeds=EMBEDS[None], encoder="a", reference_resolution=1),
        lambda: Identity(embeds=EMBEDS + np.float32(np.inf), encoder="a", reference_resolution=1),
        lambda: Identity(embeds=EMBEDS, encoder=EMBEDS, reference_resolution=1),  # type: ignore[arg-type]
        lambda: Identity(embeds=EMBEDS, encoder="a", reference_resolution=EMBEDS),  # type: ignore[arg-type]
        lambda: check_reference_resolution(MARKED),
        lambda: checked_threads(EMBEDS),
    ],
)  # fmt: skip
def test_no_message_shows_what_it_was_given_instead(wrong: Callable[[], Any]) -> None:
    with pytest.raises(FaceDiffuserError) as error:
        wrong()
    told = "".join(traceback.format_exception(error.value, limit=0))
    assert "217" not in told
    assert "61803" not in told
    assert len(told) < 800
