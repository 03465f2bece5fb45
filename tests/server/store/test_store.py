"""The store's own rules, the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.config import ServerConfig
from server.identities.vault import Row, Vault
from server.store.admissions import Admissions, Claim, Refusal, Repeat
from server.store.database import Database, StoreError, opened
from server.store.identities import Identities
from server.store.store import Store

ROW = Row(tenant="a", id="id_1", created=1.0, expires=1e12 + 1 / 3, consent="self")


@pytest.fixture
def database(store: str) -> Iterator[Database]:
    with closing(opened(store)) as found:
        yield found


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admissions(database: Database, clock: Clock, **limits: Any) -> Admissions:
    known: dict[str, Any] = {"most_jobs": 100, "a_minute": {"steps": 60}} | limits
    return Admissions(database, clock=clock, **known)


def claim(job: str, steps: int = 1, *, tenant: str = "a", **more: Any) -> Claim:
    repeat = Repeat(fingerprint=b"f", seed=2**32 - 1, job=job)
    return Claim(tenant=tenant, repeat=repeat, amounts={"steps": steps}, lasts_s=100, **more)


def test_a_row_comes_back_as_it_was(database: Database) -> None:
    rows, sealed = Identities(database), bytes(range(256))
    assert rows.add(ROW, sealed, most=1)
    assert not rows.add(replace(ROW, id="id_2"), sealed, most=1)
    assert rows.add(replace(ROW, tenant="b"), sealed, most=1)
    found = rows.find("a", "id_1", 2.0)
    assert found == (ROW, sealed)
    # Bound to its seal by every digit.
    assert found[0].associated_data == ROW.associated_data
    assert rows.gone("a", ["id_1", "id_2"], 2.0) == {"id_2"}
    assert rows.gone("a", ["id_1"], ROW.expires) == {"id_1"}
    assert rows.count() == 2
    assert rows.remove("a", "id_1")
    assert not rows.remove("a", "id_1")
    assert rows.remove_expired(ROW.expires) == [replace(ROW, tenant="b")]


def test_a_minutes_allowance_fills_again_with_time(database: Database, clock: Clock) -> None:
    limits = admissions(database, clock)
    assert limits.admit(claim("1", 60)) is None
    assert limits.admit(claim("2", 2)) == Refusal(reason="steps", wait_s=2.0)
    assert limits.admit(claim("3", 60, tenant="b")) is None
    clock.now += 2
    assert limits.admit(claim("4", 2)) is None
    clock.now -= 1
    assert limits.admit(claim("5", 1)) == Refusal(reason="steps", wait_s=1.0)


def test_an_allowance_holds_a_minutes_worth_and_no_more(database: Database, clock: Clock) -> None:
    limits = admissions(database, clock)
    assert limits.admit(claim("1", 10)) is None
    clock.now += 3600
    assert limits.admit(claim("2", 61)) == Refusal(reason="steps", wait_s=1.0)
    assert limits.admit(claim("3", 60)) is None
    assert limits.admit(claim("4", 1)) == Refusal(reason="steps", wait_s=1.0)


def test_a_refusal_takes_nothing(database: Database, clock: Clock) -> None:
    limits = admissions(database, clock, a_minute={"steps": 60, "pictures": 1})
    both = replace(claim("1", 10), amounts={"steps": 10, "pictures": 2})
    refusal = limits.admit(both)
    assert refusal is not None
    assert refusal.reason == "pictures"
    assert limits.admit(claim("1", 60)) is None


def test_jobs_count_until_they_end_or_their_server_must_have(
    database: Database, clock: Clock
) -> None:
    limits = admissions(database, clock, most_jobs=2)
    assert [limits.admit(claim(each)) for each in "12"] == [None, None]
    assert limits.admit(claim("3")) == Refusal(reason="jobs")
    assert limits.admit(claim("3", tenant="b")) is None
    limits.end("1")
    assert limits.admit(claim("4")) is None
    assert limits.admit(claim("5")) == Refusal(reason="jobs")
    clock.now += 101
    assert limits.admit(claim("5")) is None
    assert limits.admit(claim("6")) is None
    limits.sweep()
    assert not limits.cancel("a", "4")
    assert limits.cancel("a", "6")


def test_a_job_is_cancelled_by_its_tenant_alone(database: Database, clock: Clock) -> None:
    limits = admissions(database, clock)
    limits.admit(claim("1"))
    assert not limits.cancel("b", "1")
    assert not limits.cancel("a", "2")
    assert limits.cancelled() == set()
    assert limits.cancel("a", "1")
    assert limits.cancelled() == {"1"}
    limits.end("1")
    assert limits.cancelled() == set()
    assert not limits.cancel("a", "1")


def test_of_a_key_that_two_servers_use_at_once_one_is_admitted(
    database: Database, clock: Clock
) -> None:
    limits = admissions(database, clock)
    first = claim("1", key=b"k")
    assert limits.admit(first) is None
    assert limits.admit(claim("2", key=b"k")) == Refusal(reason="key")
    assert limits.used_for(b"k") == first.repeat
    again = claim("3", key=b"k", known=first.repeat)
    assert limits.admit(again) is None
    assert limits.used_for(b"k") == again.repeat
    assert limits.used_for(b"other") is None


def test_the_keys_that_were_used_last_are_remembered(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.store.admissions._MOST_KEYS", 2)
    limits = admissions(database, clock)
    for number, name in enumerate([b"one", b"two", b"one", b"three"]):
        clock.now += 1
        known = limits.used_for(name)
        assert limits.admit(claim(str(number), key=name, known=known)) is None
        limits.sweep()
    found = [limits.used_for(name) for name in (b"one", b"two", b"three")]
    assert [each and each.job for each in found] == ["2", None, "3"]


def test_limits_hold_for_many_connections_at_once(store: str, clock: Clock) -> None:
    with ExitStack() as stack:
        servers = [
            admissions(stack.enter_context(closing(opened(store))), clock, most_jobs=7)
            for _ in range(4)
        ]
        start = threading.Barrier(4)

        def ask(number: int) -> int:
            start.wait()
            jobs = (claim(f"{number}.{each}") for each in range(10))
            return sum(servers[number].admit(each) is None for each in jobs)

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(ask, range(4))) == 7


def test_what_fails_in_a_transaction_leaves_nothing(database: Database) -> None:
    rows = Identities(database)
    with pytest.raises(ZeroDivisionError), database.transaction() as run:
        run("DELETE FROM jobs")
        run(
            "INSERT INTO identities (tenant, id, created, expires, consent, sealed) "
            "VALUES ('a', 'x', 1, 2, '', ?)",
            b"",
        )
        raise ZeroDivisionError
    assert rows.count() == 0
    with pytest.raises(StoreError), database.transaction() as run:
        run("SELECT nothing FROM nowhere")
    assert rows.add(ROW, b"", most=1)


def test_a_lost_connection_is_made_again(postgresql_url: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    with closing(opened(postgresql_url)) as database:
        rows = Identities(database)
        before = rows.count()
        with psycopg.connect(postgresql_url, autocommit=True) as other:
            ended = other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'face-diffuser'"
            )
            assert ended.fetchall() == [(True,)]
        assert rows.count() == before


def test_an_error_tells_no_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="database people") as error:
        opened("postgresql://me:secret@nowhere.invalid/people")
    assert "secret" not in str(error.value)


def test_a_digest_needs_the_key_and_keeps_parts_apart() -> None:
    vault = Vault(bytes(32))
    assert vault.digest(b"a", b"b") == Vault(bytes(32)).digest(b"a", b"b")
    others = [vault.digest(b"ab"), vault.digest(b"a", b"c"), Vault(b"1" * 32).digest(b"a", b"b")]
    assert len({vault.digest(b"a", b"b"), *others}) == 4


@pytest.mark.parametrize("place", [None, "people.sqlite"])
def test_who_waits_for_a_disk_is_called_in_a_thread(
    place: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = None if place is None else str(tmp_path / place)
    store = Store(opened(where), ServerConfig(store=None))
    threads: list[int] = []

    async def called() -> int:
        store.later(lambda: threads.append(threading.get_ident()))
        store.later(lambda: 1 / 0)
        return await store.call(threading.get_ident)

    with caplog.at_level("INFO", "face_diffuser.server"):
        found = asyncio.run(called())
    store.close()
    assert (found == threading.get_ident()) == (place is None)
    assert threads == [found]
    assert "store_failed" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_statement_alone_fails_as_a_transaction_does(database: Database) -> None:
    with pytest.raises(StoreError):
        database.run("SELECT nothing FROM nowhere")
    database.run(
        "INSERT INTO jobs (id, tenant, expires, cancelled) VALUES (?, ?, ?, 0)", "j", "a", 1
    )
    assert database.run("SELECT id, expires FROM jobs") == [("j", 1.0)]
