"""The server over a real bundle: its pictures are the embedded API's, whoever asks beside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from runtime import FaceDiffuser, Request
from server.jobs.engine import LocalEngine
from tests.server.serving import HER, HIM, PROMPT, Served, body, events_of, pixels, served, upload
from tests.server.test_identities import by_name

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def server(golden_bundle: Path) -> Iterator[Served]:
    opened = FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1)
    engine = LocalEngine(opened, max_photo_pixels=20_000_000)
    with served(engine, authenticate=by_name, tenant_jobs=100) as found:
        found.client.headers["x-name"] = "a"
        yield found


@pytest.fixture(scope="module")
def embedded(golden_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        yield opened


def alone(embedded: FaceDiffuser, photo: Path, seed: int, **changes: Any) -> npt.NDArray[np.uint8]:
    words = {"num_inference_steps": 3, "height": 64, "width": 64} | changes
    request = Request(prompt=PROMPT, references=[photo], seed=seed, **words)
    return np.asarray(embedded.generate(request).images[0])


def test_two_tenants_at_once_get_what_each_gets_alone(
    server: Served, embedded: FaceDiffuser
) -> None:
    names = {"a": HIM, "b": HER}
    people = {name: server.identity(photo, {"x-name": name}) for name, photo in names.items()}

    def differs(number: int) -> bool:
        name = "ab"[number % 2]
        answer = server.draw(body(people[name], seed=number), {"x-name": name})
        found = pixels(answer.json()["images"][0]["b64_json"])
        return not np.array_equal(found, alone(embedded, names[name], number))

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(differs, range(20))) == 0
    assert not np.array_equal(alone(embedded, HIM, 1), alone(embedded, HER, 1))
    assert not np.array_equal(alone(embedded, HIM, 1), alone(embedded, HIM, 2))


def test_saliency_comes_as_one_small_picture_a_fusion_step(
    server: Served, embedded: FaceDiffuser
) -> None:
    words = body(server.identity(), num_inference_steps=10, saliency=True)
    answer = server.draw(words).json()
    request = Request(
        prompt=PROMPT, references=[HIM], seed=5, num_inference_steps=10, height=64, width=64,
        saliency=True,
    )  # fmt: skip
    wanted = embedded.generate(request).saliency
    assert wanted is not None
    assert [each["step"] for each in answer["saliency"]] == [each.step + 1 for each in wanted]
    for found, seen in zip(answer["saliency"], wanted, strict=True):
        red, green, blue = pixels(found["b64_json"]).transpose(2, 0, 1)
        np.testing.assert_array_equal(blue > 0, seen.saliency.mask[0])
        for plane, saliency in ((red, seen.saliency.tdm[0]), (green, seen.saliency.sdm[0])):
            np.testing.assert_allclose(plane / 255, saliency / saliency.max(), atol=0.51 / 255)


def test_a_prompt_that_does_not_fit_is_refused_in_the_librarys_words(server: Served) -> None:
    answer = server.draw(body(server.identity(), prompt="a man in the snow"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "PromptError")
    assert "there are 1 references" in answer.json()["error"]["message"]
    photo = upload(b"no photo")
    answer = server.client.post("/v1/identities", **photo)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "ReferenceImageError")
    large = io.BytesIO()
    Image.new("1", (8000, 8000)).save(large, "PNG")
    photo["files"] = {"photo": large.getvalue()}
    answer = server.client.post("/v1/identities", **photo)
    assert answer.status_code == 400
    assert "20000000 px" in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Any]:
    base_url = f"{server.url}/v1"
    with openai.OpenAI(
        base_url=base_url, api_key="none", max_retries=0, default_headers={"x-name": "a"}
    ) as opened:
        yield opened


SMALL = {"seed": 5, "num_inference_steps": 3}


def test_openais_client_edits_with_one_photo_and_with_two(
    client: Any, server: Served, embedded: FaceDiffuser
) -> None:
    assert [each.id for each in client.models.list()] == ["face-diffuser"]
    before = server.client.get("/v1/identities").json()
    words = {"prompt": PROMPT, "size": "64x64", "extra_body": SMALL, "model": "face-diffuser"}
    one = client.images.edit(image=HIM, **words)
    np.testing.assert_array_equal(pixels(one.data[0].b64_json), alone(embedded, HIM, 5))
    words["prompt"] = "a man <|image|> and a woman <|image|>"
    two = client.images.edit(image=[HIM, HER], n=2, **words)
    assert len(two.data) == 2
    jpeg = client.images.edit(image=[HIM, HER], output_format="jpeg", **words)
    assert base64.b64decode(jpeg.data[0].b64_json).startswith(b"\xff\xd8")
    assert server.client.get("/v1/identities").json() == before


def test_openais_client_streams_partial_images(client: Any, embedded: FaceDiffuser) -> None:
    words = {"prompt": PROMPT, "size": "64x64", "extra_body": SMALL | {"num_inference_steps": 8}}
    events = list(client.images.edit(image=HIM, stream=True, partial_images=2, **words))
    assert [each.type for each in events] == [
        "image_edit.partial_image", "image_edit.partial_image", "image_edit.completed",
    ]  # fmt: skip
    assert [each.partial_image_index for each in events[:2]] == [0, 1]
    wanted = alone(embedded, HIM, 5, num_inference_steps=8)
    np.testing.assert_array_equal(pixels(events[-1].b64_json), wanted)


def test_openais_client_generates_with_identities_and_is_told_why_not_without(
    client: Any, server: Served, embedded: FaceDiffuser
) -> None:
    with pytest.raises(openai.BadRequestError, match="this model draws given people"):
        client.images.generate(prompt="a cat")
    who = server.identity()
    made = client.images.generate(
        prompt=PROMPT, size="64x64", extra_body=SMALL | {"identities": [who]}
    )
    np.testing.assert_array_equal(pixels(made.data[0].b64_json), alone(embedded, HIM, 5))
    server.client.delete(f"/v1/identities/{who}")
    for words, error in (
        ({"mask": HIM}, openai.BadRequestError),
        ({"size": "large"}, openai.BadRequestError),
        ({"size": "65x64"}, openai.BadRequestError),
        ({"response_format": "url"}, openai.BadRequestError),
        ({"model": "gpt-image-1"}, openai.NotFoundError),
    ):
        with pytest.raises(error):
            client.images.edit(image=HIM, prompt=PROMPT, **words)


def test_previews_come_as_pictures(server: Served) -> None:
    words = body(server.identity(), stream=True, preview=True)
    with server.client.stream("POST", "/v1/pictures", json=words) as answer:
        events = list(events_of(answer.iter_lines()))
    shown = [pixels(data["b64_json"]) for name, data in events if name == "preview"]
    assert len(shown) in (2, 3)  # the last may come after the picture itself, and then does not
    assert all(each.shape[2] == 3 and each.std() > 0 for each in shown)
