"""Jobs that wait and have one form, drawn in one call where that was measured to pay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import FaceDiffuser, Request
from server.jobs.engine import LocalEngine
from tests.doubles.pacing_engine import PacingEngine, noise
from tests.server.serving import Served, body, pixels, served, until
from tests.server.six_clients import (
    LINEAR,
    SUBLINEAR,
    assert_as_drawn_alone,
    bundle_with_curve,
    pictures_of_six,
)
from tests.server.test_identities import by_name

NAME = {"x-name": "a"}


@pytest.fixture
def engine() -> PacingEngine:
    found = PacingEngine(step_s=0.01)
    found.together = 4
    return found


@pytest.fixture
def server(engine: PacingEngine) -> Iterator[Served]:
    with served(engine, authenticate=by_name) as found:
        found.client.headers.update(NAME)
        yield found


def waiting(server: Served, engine: PacingEngine, bodies: list[dict[str, Any]]) -> list[str]:
    """Admit jobs while another one is drawn, and let that one end; the jobs' ids."""
    who = bodies[0]["identities"][0]
    first = server.draw(body(who, num_inference_steps=900, wait=False)).json()["id"]
    until(lambda: engine.calls == [1])
    jobs = [server.draw({**each, "wait": False}).json()["id"] for each in bodies]
    assert server.client.delete(f"/v1/pictures/{first}").status_code == 204
    return jobs


def told(server: Served, job: str) -> dict[str, Any]:
    answer: dict[str, Any] = server.client.get(f"/v1/pictures/{job}").json()
    return answer


def ended(server: Served, *jobs: str) -> list[str]:
    states = ("queued", "running")
    until(lambda: all(told(server, job)["state"] not in states for job in jobs))
    return [told(server, job)["state"] for job in jobs]


def test_jobs_that_wait_are_drawn_in_one_call(server: Served, engine: PacingEngine) -> None:
    who = server.identity()
    jobs = waiting(server, engine, [body(who, seed=seed) for seed in range(5)])
    assert ended(server, *jobs) == ["done"] * 5
    assert engine.calls == [1, 4, 1]
    for seed, job in enumerate(jobs):
        answer = told(server, job)
        assert (answer["seeds"], answer["steps_done"]) == ([seed], 3)
        np.testing.assert_array_equal(
            pixels(answer["images"][0]["b64_json"]), np.asarray(noise(seed))
        )
    assert 'facediffuser_jobs_per_call_bucket{le="4.0"} 3.0' in server.client.get("/metrics").text
    assert 'facediffuser_jobs_per_call_bucket{le="3.0"} 2.0' in server.client.get("/metrics").text


def test_a_job_of_lower_priority_does_not_slow_a_higher_one(
    server: Served, engine: PacingEngine
) -> None:
    who = server.identity()
    bodies = [body(who, priority="low"), body(who), body(who, priority="low"), body(who)]
    assert ended(server, *waiting(server, engine, bodies)) == ["done"] * 4
    assert engine.calls == [1, 2, 2]


def test_one_that_is_cancelled_ends_after_its_step_and_the_others_are_drawn(
    server: Served, engine: PacingEngine
) -> None:
    who = server.identity()
    bodies = [body(who, seed=seed, num_inference_steps=100) for seed in range(3)]
    jobs = waiting(server, engine, bodies)
    until(lambda: told(server, jobs[1])["steps_done"] > 2)
    assert server.client.delete(f"/v1/pictures/{jobs[1]}").status_code == 204
    until(lambda: told(server, jobs[1])["state"] == "cancelled", 0.5)
    assert told(server, jobs[0])["state"] == "running"
    assert ended(server, *jobs) == ["done", "cancelled", "done"]
    assert told(server, jobs[2])["steps_done"] == 100
    assert engine.calls == [1, 3]


def test_a_call_that_nobody_wants_ends(server: Served, engine: PacingEngine) -> None:
    who = server.identity()
    jobs = waiting(server, engine, [body(who, num_inference_steps=999) for _ in range(2)])
    until(lambda: engine.calls == [1, 2])
    for job in jobs:
        server.client.delete(f"/v1/pictures/{job}")
    assert ended(server, *jobs) == ["cancelled"] * 2
    assert engine.idle.wait(2)
    assert engine.calls == [1, 2]


def test_the_job_that_a_call_fails_for_fails_alone(server: Served, engine: PacingEngine) -> None:
    who = server.identity()
    engine.fails_at = 1
    jobs = waiting(server, engine, [body(who, seed=seed) for seed in range(3)])
    assert ended(server, *jobs) == ["done", "failed", "done"]
    assert told(server, jobs[1])["error"]["type"] == "internal"
    assert engine.calls == [1, 3, 1, 1, 1]


class CountingEngine(LocalEngine):
    """Also keeps of how many requests its calls were."""

    def __init__(self, bundle: Path) -> None:
        opened = FaceDiffuser.open(bundle, provider="onnxruntime-cpu", threads=1)
        super().__init__(opened, max_photo_pixels=20_000_000)
        self.calls: list[int] = []

    async def draw(self, requests: Sequence[Request], **words: Any) -> None:
        self.calls.append(len(requests))
        await super().draw(requests, **words)


@pytest.mark.parametrize("images_s", [SUBLINEAR, LINEAR], ids=["sublinear", "linear"])
def test_pictures_of_a_real_engine_equal_those_drawn_alone(
    images_s: dict[int, float], golden_bundle: Path, tmp_path: Path
) -> None:
    engine = CountingEngine(bundle_with_curve(golden_bundle, images_s, tmp_path / "bundle"))
    with served(engine) as server:
        pictures = pictures_of_six(server, begun=lambda: bool(engine.calls))
    assert (max(engine.calls) > 1) == (images_s is SUBLINEAR)
    assert_as_drawn_alone(pictures, golden_bundle)
