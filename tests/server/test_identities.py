"""People: encrypted where they are kept, a tenant's own, gone when they shall be."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import HTTPConnection

from runtime import ConstantOutputError, Identity
from server.config import ConfigError, ServerConfig
from server.identities.people import DAY_S, Kept
from server.identities.vault import KEY_VARIABLE, Row, SealError, Vault, key_of
from server.logs import LOGGER
from server.store.identities import Identities
from server.store.sqlite import Sqlite
from server.tenants import Tenant
from tests.doubles.pacing_engine import PacingEngine
from tests.server.serving import HER, HIM, PROMPT, Served, body, served, until, upload

now = time.time
ROW = Row(tenant="a", id="id_1", created=1.0, expires=2.0, consent="self")
HIS = Identity(embeds=np.arange(8, dtype=np.float32), encoder="e", reference_resolution=512)


def by_name(connection: HTTPConnection) -> Tenant | None:
    """A hook of a test: whoever says a name has it."""
    name = connection.headers.get("x-name")
    return None if name is None else Tenant(name=name)


@pytest.fixture
def engine() -> PacingEngine:
    return PacingEngine()


@pytest.fixture
def server(engine: PacingEngine) -> Iterator[Served]:
    with served(engine, authenticate=by_name) as found:
        yield found


def test_a_sealed_identity_opens_with_its_key_in_its_row_alone() -> None:
    vault = Vault(bytes(32))
    sealed = vault.sealed(ROW, HIS)
    assert vault.sealed(ROW, HIS) != sealed, "no nonce is used twice"
    opened = vault.opened(ROW, sealed)
    np.testing.assert_array_equal(opened.embeds, HIS.embeds)
    assert (opened.encoder, opened.reference_resolution) == ("e", 512)
    changes = [{"tenant": "b"}, {"id": "id_2"}, {"expires": 3.0}, {"consent": "nobody"}]
    for change in changes:
        with pytest.raises(SealError):
            vault.opened(replace(ROW, **change), sealed)  # type: ignore[arg-type]
    with pytest.raises(SealError):
        Vault(b"1" * 32).opened(ROW, sealed)
    with pytest.raises(SealError):
        vault.opened(ROW, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_a_key_comes_from_its_file_or_the_environment_and_is_32_bytes(tmp_path: Path) -> None:
    words = base64.b64encode(b"k" * 32).decode()
    file = tmp_path / "key"
    file.write_text(words + "\n")
    for mode in (0o644, 0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="other users can read"):
            key_of(file)
    file.chmod(0o600)
    assert key_of(file) == key_of(None, {KEY_VARIABLE: words}) == b"k" * 32
    assert key_of(None, {}) is None
    for wrong in ("", "short", words[:-4], "é"):
        with pytest.raises(ConfigError):
            key_of(None, {KEY_VARIABLE: wrong})


def test_an_expired_row_is_not_found_and_swept(tmp_path: Path) -> None:
    database = Sqlite(tmp_path / "people.sqlite")
    store = Identities(database)
    assert (tmp_path / "people.sqlite").stat().st_mode & 0o777 == 0o600
    store.add(ROW, b"sealed", most=1)
    assert store.find("a", "id_1", now=1.5) == (ROW, b"sealed")
    assert store.find("b", "id_1", now=1.5) is None
    assert store.find("a", "id_1", now=2.0) is None
    assert store.remove_expired(1.9) == []
    assert store.remove_expired(2.0) == [ROW]
    assert store.count() == 0
    database.close()


def test_the_disk_holds_no_photo_and_no_embedding_in_the_clear(
    engine: PacingEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, base64.b64encode(os.urandom(32)).decode())
    spooled: list[int] = []

    def spool(*words: object, **more: object) -> io.BytesIO:
        spooled.append(1)
        return io.BytesIO()

    monkeypatch.setattr(tempfile, "TemporaryFile", spool)
    large = tmp_path / "large.png"
    large.write_bytes(os.urandom(3 << 20))
    database = tmp_path / "people.sqlite"
    with served(engine, store=str(database)) as server:
        identity = server.identity(large)
        content = database.read_bytes()
        value = np.float32(sum(large.read_bytes()) % 251).tobytes()
        assert value * 8 not in content
        assert base64.b64encode(value * 8)[:24] not in content
        assert large.read_bytes()[:64] not in content
        assert not spooled
    with served(PacingEngine(), store=str(database)) as server:
        assert server.draw(body(identity)).status_code == 200
        assert server.client.delete(f"/v1/identities/{identity}").status_code == 204
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT COUNT(*) FROM identities").fetchone() == (0,)
    connection.close()


def test_a_store_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="need a key"):
        Kept.open(ServerConfig(store=str(tmp_path / "people.sqlite")))
    assert not (tmp_path / "people.sqlite").exists()


def test_another_tenant_sees_nothing_of_a_person_or_a_picture(server: Served) -> None:
    mine = server.identity(headers={"x-name": "a"})
    job = server.draw(body(mine), {"x-name": "a"}).json()["id"]
    get = server.client.get
    for path in (f"/v1/identities/{mine}", f"/v1/pictures/{job}", f"/v1/pictures/{job}/images/0",
                 f"/v1/pictures/{job}/events"):  # fmt: skip
        assert get(path, headers={"x-name": "a"}).status_code == 200
        assert get(path, headers={"x-name": "b"}).status_code == 404
        assert get(path).status_code == 401
    assert server.draw(body(mine), {"x-name": "b"}).status_code == 404
    for path in (f"/v1/identities/{mine}", f"/v1/pictures/{job}"):
        for other in ("b", "A", "aa"):
            assert server.client.delete(path, headers={"x-name": other}).status_code == 404
    assert get("/v1/identities", headers={"x-name": "b"}).json() == {"data": []}
    assert len(get("/v1/identities", headers={"x-name": "a"}).json()["data"]) == 1


def test_deleting_a_person_ends_their_jobs_and_drops_their_pictures(
    server: Served, engine: PacingEngine
) -> None:
    name = {"x-name": "a"}
    him, her = server.identity(HIM, name), server.identity(HER, name)
    done = server.draw(body(him), name).json()["id"]
    hers = server.draw(body(her), name).json()["id"]
    engine.step_s = 0.02
    running = server.draw(body(him, num_inference_steps=500, wait=False), name).json()["id"]
    waiting = server.draw(body(him, wait=False), name).json()["id"]
    until(lambda: engine.steps > 8)
    assert server.client.delete(f"/v1/identities/{him}", headers=name).status_code == 204
    assert engine.idle.wait(5)

    def state(job: str) -> str:
        answer = server.client.get(f"/v1/pictures/{job}", headers=name).json()
        return str(answer.get("state", "gone"))

    until(lambda: state(running) == "cancelled")
    assert (state(waiting), state(done), state(hers)) == ("cancelled", "gone", "done")
    assert server.draw(body(him), name).status_code == 404
    assert server.draw(body(her), name).status_code == 200


def test_a_persons_pictures_go_when_their_time_is_over(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"x-name": "a"}
    answer = server.client.post(
        "/v1/identities", files={"photo": HIM.read_bytes()}, headers=name,
        data={"consent": "self", "ttl_s": "60"},
    )  # fmt: skip
    him, her = answer.json()["id"], server.identity(HER, name)
    his, hers = (server.draw(body(who), name).json()["id"] for who in (him, her))

    def found(job: str) -> int:
        return server.client.get(f"/v1/pictures/{job}", headers=name).status_code

    assert (found(his), found(hers)) == (200, 200)
    monkeypatch.setattr("server.identities.people.time.time", lambda: now() + 61)
    until(lambda: found(his) == 404)
    assert found(hers) == 200
    assert server.draw(body(him), name).status_code == 404


def test_without_consent_nothing_is_encoded(server: Served) -> None:
    for data in ({}, {"consent": " "}, {"consent": "x" * 300}, {"consent": "self", "ttl_s": "-1"}):
        answer = server.client.post(
            "/v1/identities", files={"photo": b"x"}, data=data, headers={"x-name": "a"}
        )
        assert answer.status_code == 400
    assert server.client.get("/v1/identities", headers={"x-name": "a"}).json() == {"data": []}


def test_an_identity_lives_as_long_as_was_asked_and_no_longer_than_the_server_says(
    server: Served,
) -> None:
    for ttl_s, lives_s in (("60", 60), ("1e12", 30 * DAY_S)):
        answer = server.client.post(
            "/v1/identities", files={"photo": b"x"}, data={"consent": "self", "ttl_s": ttl_s},
            headers={"x-name": "a"},
        )  # fmt: skip
        row = answer.json()
        assert row["expires_at"] - row["created_at"] == pytest.approx(lives_s)


def test_the_log_tells_ids_and_numbers_alone(
    engine: PacingEngine, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "zanzibar"
    with caplog.at_level(logging.INFO, LOGGER.name), served(engine) as server:
        who = server.identity()
        server.draw(body(who, prompt=f"{PROMPT} {secret}"))
        engine.fails = ValueError(secret)
        assert server.draw(body(who, prompt=f"{PROMPT} {secret}")).status_code == 500
        server.draw(body(who, prompt=secret, alpha=5))
        server.client.get(f"/{secret}?{secret}")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert {"request", "job", "identity_added", "defect"} <= {line["event"] for line in lines}
    assert secret not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_what_is_gone_is_not_in_the_file_any_more(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = sqlite3.connect

    def connect(*words: Any, **options: Any) -> sqlite3.Connection:
        """As SQLite is built in most places: what is deleted stays in the file."""
        connection = connected(*words, **options)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    path, sealed = tmp_path / "people.db", b"sealed bytes of a person " * 20
    database = Sqlite(path)
    store = Identities(database)
    assert store.add(ROW, sealed, most=1)
    assert sealed in path.read_bytes()
    if how == "deleted":
        assert store.remove(ROW.tenant, ROW.id)
    else:
        assert store.remove_expired(ROW.expires) == [ROW]
    database.close()
    assert b"sealed bytes" not in path.read_bytes()


def test_an_engine_that_fails_at_a_photo_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = PacingEngine()
    engine.fails = ConstantOutputError("the image encoder gives the same everywhere")
    with served(engine) as server, caplog.at_level(logging.INFO, "face_diffuser.server"):
        answer = server.client.post("/v1/identities", **upload(HIM.read_bytes()))
    assert answer.status_code == 500
    lines = [json.loads(each.getMessage()) for each in caplog.records]
    (defect,) = (each for each in lines if each["event"] == "defect")
    assert defect["error"] == "ConstantOutputError"
    assert defect["path"] == "/v1/identities"
