"""Pictures over HTTP: waited for, streamed, cancelled, refused, asked for twice."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from runtime import ConstantOutputError
from tests.doubles.pacing_engine import PacingEngine, noise
from tests.server.serving import Served, body, events_of, pixels, served, until


@pytest.fixture
def engine() -> PacingEngine:
    return PacingEngine()


@pytest.fixture
def server(engine: PacingEngine) -> Iterator[Served]:
    with served(engine, queue=8, tenant_jobs=1000, tenant_pictures=100_000) as found:
        yield found


def test_a_waited_for_picture_tells_its_seed_and_settings(server: Served) -> None:
    answer = server.draw(body(server.identity(), num_images=2))
    assert answer.status_code == 200
    assert answer.json()["seeds"] == [5, 6]
    for seed, image in zip((5, 6), answer.json()["images"], strict=True):
        np.testing.assert_array_equal(pixels(image["b64_json"]), np.asarray(noise(seed)))


def test_a_seed_is_drawn_at_admission_where_none_was_given(
    server: Served, engine: PacingEngine
) -> None:
    answers = [server.draw(body(server.identity(), seed=None)).json() for _ in range(2)]
    assert [each["seeds"][0] for each in answers] == [each.seed for each in engine.drawn]
    assert engine.drawn[0].seed != engine.drawn[1].seed


def test_a_png_is_the_picture_itself_with_the_mark_of_a_model(server: Served) -> None:
    answer = server.draw(body(server.identity(), response="png"))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == "5"
    assert b"trainedAlgorithmicMedia" in answer.content
    assert b"snow" not in answer.content


def test_a_stream_tells_the_steps_one_by_one(server: Served, engine: PacingEngine) -> None:
    engine.step_s = 0.05
    came: list[tuple[str, float]] = []
    words = body(server.identity(), stream=True, preview=True)
    with server.client.stream("POST", "/v1/pictures", json=words) as answer:
        for name, _ in events_of(answer.iter_lines()):
            came.append((name, time.monotonic()))
    names = [name for name, _ in came if name != "preview"]
    assert names == ["queued", "started", "step", "step", "step", "picture", "done"]
    # The last is left out where the picture itself was there before it.
    assert sum(name == "preview" for name, _ in came) in (2, 3)
    steps = [when for name, when in came if name == "step"]
    assert steps[-1] - steps[0] > 0.06, "the steps came all at once"


def test_a_stream_goes_on_after_the_last_event_that_was_read(server: Served) -> None:
    admitted = server.draw(body(server.identity(), wait=False))
    assert admitted.status_code == 202
    job = admitted.json()["id"]
    path, headers = f"/v1/pictures/{job}/events", {"Last-Event-ID": "4"}
    with server.client.stream("GET", path) as answer:
        names = [name for name, _ in events_of(answer.iter_lines())]
    assert names == ["queued", "started", "step", "step", "step", "picture", "done"]
    with server.client.stream("GET", path, headers=headers) as answer:
        names = [name for name, _ in events_of(answer.iter_lines())]
    assert names == ["step", "picture", "done"]


def test_cancelling_by_id_ends_the_work_within_a_step(server: Served, engine: PacingEngine) -> None:
    engine.step_s = 0.02
    job = server.draw(body(server.identity(), num_inference_steps=500, wait=False)).json()["id"]
    until(lambda: engine.steps > 2)
    started = time.monotonic()
    assert server.client.delete(f"/v1/pictures/{job}").status_code == 204
    assert engine.idle.wait(5)
    assert time.monotonic() - started < 1
    until(lambda: server.client.get(f"/v1/pictures/{job}").json()["state"] == "cancelled")
    assert engine.steps < 100


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("step_s", [0.0005, 0.02])
def test_a_client_that_hangs_up_ends_its_work(
    server: Served, engine: PacingEngine, *, stream: bool, step_s: float
) -> None:
    engine.step_s = step_s
    words = body(server.identity(), num_inference_steps=999, stream=stream)
    request = server.client.build_request("POST", "/v1/pictures", json=words)
    head = f"POST /v1/pictures HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(request.content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0)) as connection:
        connection.sendall(head.encode() + request.content)
        until(lambda: engine.steps > 2)
    assert engine.idle.wait(5)
    assert engine.steps < 900
    engine.step_s = 0
    assert server.draw(body(server.identity())).status_code == 200


def test_a_client_that_hangs_up_leaves_the_queue_at_once(
    server: Served, engine: PacingEngine
) -> None:
    """Nothing happens to its job meanwhile, so that no event wakes who waits for it."""
    engine.step_s = 0.05
    who = server.identity()
    server.draw(body(who, num_inference_steps=900, wait=False))
    until(lambda: engine.steps > 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/pictures", json=body(who), timeout=0.5)
    until(lambda: "facediffuser_queue_length 0.0" in server.client.get("/metrics").text, 3)
    assert engine.steps < 900
    assert 'facediffuser_jobs_total{outcome="cancelled"} 1.0' in server.client.get("/metrics").text


def test_a_job_that_nobody_waited_for_goes_on_when_a_follower_leaves(
    server: Served, engine: PacingEngine
) -> None:
    engine.step_s = 0.02
    job = server.draw(body(server.identity(), num_inference_steps=40, wait=False)).json()["id"]
    with server.client.stream("GET", f"/v1/pictures/{job}/events") as answer:
        for name, _ in events_of(answer.iter_lines()):
            if name == "step":
                break
    until(lambda: server.client.get(f"/v1/pictures/{job}").json()["state"] == "done")
    assert len(engine.drawn) == 1


def test_a_job_that_waits_is_cancelled_at_once(server: Served, engine: PacingEngine) -> None:
    engine.step_s = 0.05
    who = server.identity()
    first, second = (
        server.draw(body(who, num_inference_steps=100, wait=False)).json()["id"] for _ in range(2)
    )
    server.client.delete(f"/v1/pictures/{second}")
    assert server.client.get(f"/v1/pictures/{second}").json()["state"] == "cancelled"
    assert server.client.get(f"/v1/pictures/{first}").json()["state"] == "running"
    server.client.delete(f"/v1/pictures/{first}")


def test_a_job_that_takes_too_long_ends_with_504(server: Served, engine: PacingEngine) -> None:
    engine.step_s = 0.02
    answer = server.draw(body(server.identity(), num_inference_steps=500, timeout_s=0.2))
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout")
    assert engine.idle.wait(5)


def test_no_job_asks_for_more_time_than_the_server_gives(engine: PacingEngine) -> None:
    engine.step_s = 0.02
    with served(engine, timeout_s=0.3) as server:
        answer = server.draw(body(server.identity(), num_inference_steps=200, timeout_s=60))
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout")
        assert engine.idle.wait(5)


def test_the_pixels_of_all_pictures_of_a_job_are_bounded(engine: PacingEngine) -> None:
    with served(engine, max_pixels=2 * 64 * 64) as server:
        who = server.identity()
        assert server.draw(body(who, num_images=2)).status_code == 200
        for more in ({"num_images": 3}, {"num_images": 2, "width": 128}, {"height": 192}):
            answer = server.draw(body(who, **more))
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "too_large")
    assert len(engine.drawn) == 1


def test_an_idempotency_key_is_one_picture(server: Served, engine: PacingEngine) -> None:
    who = server.identity()
    headers = {"Idempotency-Key": "one"}
    answers = [server.draw(body(who, seed=None), headers) for _ in range(3)]
    assert len({each.json()["id"] for each in answers}) == len(engine.drawn) == 1
    other = server.draw(body(who, seed=None, num_inference_steps=4), headers)
    assert (other.status_code, other.json()["error"]["type"]) == (422, "idempotency_key_reused")


def test_a_retry_of_a_failed_job_draws_with_the_same_seed(
    server: Served, engine: PacingEngine
) -> None:
    words, headers = body(server.identity(), seed=None), {"Idempotency-Key": "again"}
    engine.fails = ConstantOutputError("the same everywhere")
    assert server.draw(words, headers).status_code == 500
    engine.fails = None
    assert server.draw(words, headers).status_code == 200
    assert engine.drawn[0].seed == engine.drawn[1].seed


@pytest.mark.slow
def test_200_requests_at_a_queue_of_8_are_drawn_or_refused_with_a_time(
    server: Served, engine: PacingEngine
) -> None:
    engine.step_s = 0.002
    who = server.identity()

    def ask(seed: int) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/pictures", json=body(who, seed=seed), timeout=60)

    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(ask, range(200)))
    counts = Counter(each.status_code for each in answers)
    assert set(counts) == {200, 503}
    for seed, answer in enumerate(answers):
        if answer.status_code == 200:
            image = answer.json()["images"][0]
            np.testing.assert_array_equal(pixels(image["b64_json"]), np.asarray(noise(seed)))
        else:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["retryable"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"identities": []}, 422), ({"identities": ["/etc/passwd"]}, 404), ({"height": 65}, 422),
        ({"num_inference_steps": 0}, 422), ({"references": ["/etc/passwd"]}, 422),
        ({"alpha": 0.9, "beta": 0.1}, 400), ({"height": 4096, "width": 4096}, 400),
        ({"response": "png", "num_images": 2}, 400), ({"prompt": ""}, 422),
        ({"seed": 2**32}, 422), ({"guidance_scale": 1e9}, 422), ({"priority": "urgent"}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_before_it_waits(
    server: Served, engine: PacingEngine, changes: dict[str, Any], status: int
) -> None:
    answer = server.draw(body(server.identity()) | changes)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert not engine.drawn


def test_a_prompt_of_one_letter_is_for_the_engine_to_judge(
    server: Served, engine: PacingEngine
) -> None:
    assert server.draw(body(server.identity(), prompt="x")).status_code == 200
    assert [each.prompt for each in engine.drawn] == ["x"]


def test_finished_jobs_are_kept_within_bounds(engine: PacingEngine) -> None:
    with served(engine, keep_mib=1, tenant_pictures=100_000) as server:
        who = server.identity()
        first = server.draw(body(who)).json()["id"]
        later = [server.draw(body(who, seed=seed)).json()["id"] for seed in range(100)]
        assert server.client.get(f"/v1/pictures/{first}").status_code == 404
        # As many of the newest as there is room for, and no fewer.
        kept = [server.client.get(f"/v1/pictures/{each}").status_code == 200 for each in later]
        assert sum(kept) > 20 and kept == sorted(kept)
        assert 'facediffuser_jobs_total{outcome="done"} 101.0' in server.client.get("/metrics").text
    with served(PacingEngine(), keep_s=0) as server:
        first = server.draw(body(server.identity())).json()["id"]
        server.draw(body(server.identity()))
        assert server.client.get(f"/v1/pictures/{first}").status_code == 404
