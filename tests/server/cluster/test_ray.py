"""The server on Ray: a real cluster of one machine, whose replicas draw, are cancelled and killed.

The pictures are those of the embedded API, whatever became of the process that began them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.serving.cluster import engines_below
from runtime import FaceDiffuser, Request
from server.config import ServerConfig
from tests.server.serving import HER, HIM, PROMPT, Served, body, events_of, pixels, served, until

pytest.importorskip("ray")

from server.cluster.application import opened_on_ray

pytestmark = pytest.mark.slow
_ENGINES = 2


def replicas() -> list[int]:
    """Process ids of the engines that live, of this process's own cluster."""
    return engines_below(os.getpid())


@pytest.fixture(scope="module")
def server(golden_bundle: Path) -> Iterator[Served]:
    config = ServerConfig(ray="local", engines=_ENGINES, threads=1, provider="onnxruntime-cpu")  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        # A cluster that is named here, or was once: "local" is another one all the same.
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        engine, provider = opened_on_ray(golden_bundle, config)
    assert provider == "onnxruntime-cpu"
    assert engine.engines == _ENGINES
    with served(engine) as running:
        until(lambda: len(replicas()) == _ENGINES, 120)
        yield running
    assert not replicas()


@pytest.fixture(scope="module")
def embedded(golden_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        yield opened


def expected(embedded: FaceDiffuser, photo: Path, **changes: Any) -> Any:
    words: dict[str, Any] = {
        "prompt": PROMPT, "num_inference_steps": 3, "seed": 5, "height": 64, "width": 64,
    }  # fmt: skip
    drawn = embedded.generate(Request(references=[photo], **(words | changes)))
    return np.asarray(drawn.pictures[0])


def shown(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return pixels(answer.json()["images"][0]["b64_json"])


def test_pictures_of_two_engines_at_once_are_those_of_the_embedded_api(
    server: Served, embedded: FaceDiffuser
) -> None:
    people = {photo: server.identity(photo) for photo in (HIM, HER)}
    asked = [(photo, seed) for seed in range(4) for photo in people]
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda each: server.draw(body(people[each[0]], seed=each[1])), asked)
        )
    for (photo, seed), answer in zip(asked, answers, strict=True):
        assert np.array_equal(shown(answer), expected(embedded, photo, seed=seed))
    assert not np.array_equal(shown(answers[0]), shown(answers[1]))


def test_two_jobs_are_drawn_side_by_side(server: Served) -> None:
    him = server.identity()
    states: list[list[str]] = []
    jobs = [
        server.draw(body(him, num_inference_steps=60, wait=False)).json()["id"] for _ in range(3)
    ]

    def both_run() -> bool:
        states.append([server.client.get(f"/v1/pictures/{job}").json()["state"] for job in jobs])
        return states[-1] == ["running", "running", "queued"]

    until(both_run, 30)
    for job in jobs:
        assert server.client.delete(f"/v1/pictures/{job}").status_code in (200, 202, 204)


def test_steps_and_previews_come_as_they_are_done(server: Served) -> None:
    him = server.identity()
    asked = body(him, stream=True, preview=True)
    with server.client.stream("POST", "/v1/pictures", json=asked) as answer:
        names = [name for name, _ in events_of(answer.iter_lines())]
    assert names[:2] == ["queued", "started"]
    assert names.count("step") == 3
    assert names[-1] == "done"


def test_a_cancelled_job_ends_soon_and_frees_its_engine(
    server: Served, embedded: FaceDiffuser
) -> None:
    him = server.identity()
    jobs = [
        server.draw(body(him, num_inference_steps=900, wait=False)).json()["id"]
        for _ in range(_ENGINES)
    ]
    running = [f"/v1/pictures/{job}" for job in jobs]
    until(lambda: all(server.client.get(u).json()["state"] == "running" for u in running), 30)
    started = time.monotonic()
    for url in running:
        server.client.delete(url)
    until(lambda: all(server.client.get(u).json()["state"] == "cancelled" for u in running), 10)
    # 900 steps of this model take more than ten seconds.
    answer = server.draw(body(him, seed=9))
    assert time.monotonic() - started < 8
    assert np.array_equal(shown(answer), expected(embedded, HIM, seed=9))


def test_a_bad_prompt_is_refused_before_it_waits(server: Served) -> None:
    him = server.identity()
    answer = server.draw(body(him, prompt="a man in the snow"))
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "PromptError"


def test_what_an_engine_refuses_is_told_in_its_own_words(server: Served) -> None:
    answer = server.client.post(
        "/v1/identities", files={"photo": b"GIF89a"}, data={"consent": "self"}
    )
    assert answer.status_code == 400
    assert "begins like GIF and is damaged" in answer.json()["error"]["message"]


def test_a_killed_engine_costs_time_and_no_picture(server: Served, embedded: FaceDiffuser) -> None:
    him, steps = server.identity(), 200
    answers: list[httpx.Response] = []

    def ask() -> None:
        wanted = body(him, seed=11, num_inference_steps=steps)
        answers.append(server.client.post("/v1/pictures", json=wanted, timeout=240))

    asking = [threading.Thread(target=ask) for _ in range(_ENGINES)]
    for each in asking:
        each.start()
    metrics = "facediffuser_queue_seconds_count"
    until(lambda: metrics in server.client.get("/metrics").text, 10)
    time.sleep(1)
    victims = replicas()
    assert len(victims) == _ENGINES
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    for each in asking:
        each.join(240)
    wanted = expected(embedded, HIM, seed=11, num_inference_steps=steps)
    assert len(answers) == _ENGINES
    for answer in answers:
        assert np.array_equal(shown(answer), wanted)
    assert not set(victims) & set(replicas())
