"""The serving benchmark's trials against a server whose engine keeps a known pace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.schema.results import line_of, record_of
from benchmarks.serving.client import Server, ServerFailedError
from benchmarks.serving.record import ServingFacts, ServingRecord
from benchmarks.serving.trials import cancels, load, memory, overhead
from engines.bundle.manifest import Precision
from runtime import Result
from tests.benchmarks.made_up import header
from tests.doubles.pacing_engine import PacingEngine
from tests.server.serving import Served, body, served

MANY = {"tenant_jobs": 1000, "tenant_pictures": 10**6, "tenant_steps": 10**9}


@pytest.fixture
def engine() -> PacingEngine:
    return PacingEngine()


@pytest.fixture
def http(engine: PacingEngine) -> Iterator[Served]:
    with served(engine, authenticate=None, queue=2, **MANY) as found:
        yield found


@pytest.fixture
def server(http: Served) -> Server:
    port = int(http.url.rpartition(":")[2])
    return Server(port=port, pid=os.getpid(), ready_s=0.0)


@pytest.fixture
def words(http: Served) -> dict[str, Any]:
    return body(http.identity())


def embedded(took_s: float, total_ms: float) -> Result:
    """Stands for the embedded call, of which only its time is looked at."""
    time.sleep(took_s)
    return cast(Result, SimpleNamespace(timings_ms={"total": total_ms}))


def test_overhead_is_what_engine_and_encoder_did_not_take(
    server: Server, engine: PacingEngine, words: dict[str, Any]
) -> None:
    engine.step_s = 0.02  # of which the double tells 1 ms a picture
    row = overhead(server, words, 2, partial(embedded, 0.06, total_ms=50.0))
    assert row.pictures == 10
    assert row.engine_p50_ms == 1
    assert row.call_p50_ms is not None and 9 < row.call_p50_ms < 40
    assert 55 < row.overhead_p50_ms + row.call_p50_ms < 500
    # What the embedded call itself takes is no cost of HTTP's.
    slow = overhead(server, words, 1, partial(embedded, 0.6, total_ms=0.0))
    assert slow.overhead_p50_ms < 0
    assert 0.2 < row.ratio < 1.5


def test_a_load_beyond_the_server_is_refused_and_counted(
    server: Server, engine: PacingEngine, words: dict[str, Any]
) -> None:
    engine.step_s = 0.02
    row = load(server, words, offered=6.0, alone_s=0.06, requests=40, seed=1)
    assert row.drawn + row.refused == row.requests == 40
    assert row.drawn > 3
    assert row.refused > 3
    assert row.failed == 0
    assert row.goodput_per_s <= row.pictures_per_s < 17


def test_an_answer_that_is_neither_picture_nor_refusal_is_a_failure(
    server: Server, engine: PacingEngine, words: dict[str, Any]
) -> None:
    engine.fails = ValueError("broken")
    row = load(server, words, offered=1.0, alone_s=0.01, requests=5, seed=1)
    assert (row.drawn, row.refused, row.failed, row.p50_ms) == (0, 0, 5, None)
    with pytest.raises(ServerFailedError, match="500"):
        memory(server, words, 1)


@pytest.mark.parametrize("by", ["delete", "hang-up"])
def test_cancels_are_timed_to_the_end_of_the_work(
    server: Server, engine: PacingEngine, words: dict[str, Any], by: str
) -> None:
    engine.step_s = 0.02
    row = cancels(server, words, 3, by=by)
    assert (row.kind, row.count) == (by, 3)
    assert row.step_ms >= 20
    assert 0 < row.p50_ms < 2000
    assert engine.idle.is_set()


def test_a_record_reads_as_it_was_written(server: Server, words: dict[str, Any]) -> None:
    facts = ServingFacts(
        precision=Precision.FP16, native_px=64, weights_fp32_nbytes=1, licenses=(), threads=1,
        provider="onnxruntime-cpu", steps=3, size_px=64, ready_s=1.0,
    )  # fmt: skip
    rows = (
        overhead(server, words, 1, partial(embedded, 0.001, total_ms=1.0)),
        load(server, words, offered=1.0, alone_s=0.01, requests=2, seed=1),
        memory(server, words, 2),
    )
    record = ServingRecord(header=header("serving"), facts=facts, rows=rows)
    assert record_of("serving", line_of(record)).rows == rows


def test_memory_is_read_before_the_first_request_each_so_many_and_at_the_end(
    server: Server, words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.serving.trials._MEMORY_EACH", 2)
    row = memory(server, words, 5)
    assert (row.requests, row.each) == (5, 2)
    assert len(row.rss_nbytes) == 4
    assert min(row.rss_nbytes) > 1 << 20
