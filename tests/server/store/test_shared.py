"""Two servers of one store: what one is told holds for the other."""

from __future__ import annotations

import base64
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from runtime import FaceDiffuser, Request
from server.identities.vault import KEY_VARIABLE
from server.logs import LOGGER
from server.store.database import opened
from tests.doubles.pacing_engine import PacingEngine
from tests.server.serving import HER, HIM, PROMPT, Served, body, pixels, served, until
from tests.server.store.databases import new_database
from tests.server.test_identities import by_name
from tests.server.test_process import process

NAME = {"x-name": "a"}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, base64.b64encode(os.urandom(32)).decode())


@pytest.fixture
def engines() -> tuple[PacingEngine, PacingEngine]:
    return PacingEngine(), PacingEngine()


@pytest.fixture
def servers(store: str, engines: tuple[PacingEngine, ...]) -> Iterator[tuple[Served, Served]]:
    limits = {"tenant_jobs": 4, "tenant_pictures": 20, "tenant_identities": 3}
    with (
        served(engines[0], authenticate=by_name, store=store, **limits) as one,
        served(engines[1], authenticate=by_name, store=store, **limits) as other,
    ):
        for each in (one, other):
            each.client.headers.update(NAME)
        yield one, other


def state(server: Served, job: str) -> str:
    return str(server.client.get(f"/v1/pictures/{job}").json().get("state", "gone"))


def test_a_person_of_one_is_drawn_by_the_other_and_gone_from_both(
    servers: tuple[Served, Served], engines: tuple[PacingEngine, PacingEngine]
) -> None:
    one, other = servers
    him, her = one.identity(HIM), one.identity(HER)
    his = other.draw(body(him)).json()["id"]
    hers = other.draw(body(her)).json()["id"]
    drawn = engines[1].drawn[0].references[0]
    assert drawn.embeds[0] == sum(HIM.read_bytes()) % 251  # type: ignore[union-attr]
    stranger = {"x-name": "b"}
    assert other.client.delete(f"/v1/identities/{him}", headers=stranger).status_code == 404
    engines[1].step_s = 0.02
    running = other.draw(body(him, num_inference_steps=900, wait=False)).json()["id"]
    waiting = other.draw(body(him, wait=False)).json()["id"]
    until(lambda: state(other, running) == "running")
    assert one.client.delete(f"/v1/identities/{him}").status_code == 204
    assert other.client.get(f"/v1/identities/{him}").status_code == 404
    assert other.draw(body(him)).status_code == 404
    until(lambda: state(other, running) == state(other, waiting) == "cancelled")
    until(lambda: state(other, his) == "gone")
    assert state(other, hers) == "done"
    assert engines[1].idle.wait(5)


def test_limits_count_what_the_other_admitted(
    servers: tuple[Served, Served], engines: tuple[PacingEngine, PacingEngine]
) -> None:
    one, other = servers
    him = one.identity()
    assert [other.client.post("/v1/identities", files={"photo": HER.read_bytes()},
                              data={"consent": "self"}).status_code for _ in range(3)] == [
        201, 201, 429,
    ]  # fmt: skip
    for engine in engines:
        engine.step_s = 0.02
    words = body(him, num_inference_steps=900, wait=False)
    jobs = [(server, server.draw(words).json()["id"]) for server in (one, other, one, other)]
    refused = one.draw(words)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "jobs")
    assert one.draw(words, {"x-name": "b"}).status_code == 404
    for server, job in jobs:
        assert server.client.delete(f"/v1/pictures/{job}").status_code == 204
    until(lambda: all(state(*each) == "cancelled" for each in jobs))
    for engine in engines:
        engine.step_s = 0
    assert one.draw(body(him, num_images=16)).status_code == 200
    refused = other.draw(body(him))
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "pictures")
    assert int(refused.headers["retry-after"]) <= 60 / 20 + 1


def test_a_key_is_the_same_seed_on_the_other(
    servers: tuple[Served, Served], engines: tuple[PacingEngine, PacingEngine], store: str
) -> None:
    one, other = servers
    him = one.identity()
    words, headers = body(him, seed=None, prompt=f"{PROMPT} zanzibar"), {"Idempotency-Key": "k 1"}
    first, again = one.draw(words, headers).json(), other.draw(words, headers).json()
    assert first["seeds"] == again["seeds"]
    assert first["images"] == again["images"]
    assert other.draw(words).json()["seeds"] != first["seeds"]
    changed = other.draw(words | {"num_images": 2}, headers)
    assert changed.status_code == 422
    # What a request said is not in the store, nor is the key that its client chose.
    with closing(opened(store)) as database, database.transaction() as run:
        (kept,) = run("SELECT digest, fingerprint FROM request_keys")
    assert [len(bytes(each)) for each in kept] == [32, 32]


def test_a_job_is_cancelled_through_the_other_by_its_tenant_alone(
    servers: tuple[Served, Served], engines: tuple[PacingEngine, PacingEngine]
) -> None:
    one, other = servers
    engines[0].step_s = 0.02
    words = body(one.identity(), num_inference_steps=900, wait=False)
    job, left = (one.draw(words).json()["id"] for _ in range(2))
    until(lambda: state(one, job) == "running")
    path = f"/v1/pictures/{job}"
    assert other.client.delete(path, headers={"x-name": "b"}).status_code == 404
    assert other.client.delete(path).status_code == 204
    until(lambda: state(one, job) == "cancelled")
    assert state(one, left) == "running"
    assert other.client.delete(path).status_code == 404
    one.client.delete(f"/v1/pictures/{left}")


def test_a_database_that_is_gone_is_told_and_holds_up_nobody_else(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    psycopg = pytest.importorskip("psycopg")
    engine = PacingEngine(step_s=0.02)
    with (
        caplog.at_level(logging.INFO, LOGGER.name),
        new_database(postgresql_url) as url,
        served(engine, store=url) as server,
    ):
        who = server.identity()
        job = server.draw(body(who, num_inference_steps=150, wait=False)).json()["id"]
        name = url.split("/")[3].partition("?")[0]
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            refused = server.draw(body(who))
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "store")
            assert "retry-after" in refused.headers
            until(lambda: "store_failed" in caplog.text)
            until(lambda: state(server, job) == "done")
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert server.draw(body(who)).status_code == 200
        server.identity(HER)
        until(lambda: "facediffuser_identities 2.0" in server.client.get("/metrics").text)


def test_a_database_that_hangs_is_waited_for_by_who_asks_it_alone(postgresql_url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    with new_database(postgresql_url) as url, served(PacingEngine(), store=url) as server:
        who = server.identity()
        with psycopg.connect(url) as other, ThreadPoolExecutor(1) as thread:
            other.execute("LOCK TABLE identities")
            asked = thread.submit(server.draw, body(who))
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
            until(lambda: bool(other.execute(waiting).fetchall()))
            started = time.monotonic()
            assert server.client.get("/livez").status_code == 200
            assert time.monotonic() - started < 2
            assert not asked.done()
            refused = asked.result()
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "store")
        assert server.draw(body(who)).status_code == 200


@pytest.mark.slow
def test_two_processes_draw_a_person_of_one_store(golden_bundle: Path, store: str) -> None:
    words = ("--store", store, "--queue", "4")
    with (
        process(golden_bundle, *words) as (_, one),
        process(golden_bundle, *words) as (_, other),
        FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as embedded,
    ):
        form = {"files": {"photo": HIM.read_bytes()}, "data": {"consent": "self"}}
        him = one.post("/v1/identities", **form).json()["id"]  # type: ignore[arg-type]
        answer = other.post("/v1/pictures", json=body(him)).json()
        request = Request(
            prompt=PROMPT, references=[HIM], seed=5, num_inference_steps=3, height=64, width=64
        )
        found, wanted = pixels(answer["images"][0]["b64_json"]), embedded.generate(request)
        assert (found == wanted.pictures[0]).all()
        assert other.delete(f"/v1/identities/{him}").status_code == 204
        assert one.post("/v1/pictures", json=body(him)).status_code == 404
