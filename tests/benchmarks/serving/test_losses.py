"""The trials that take engines and servers away: what they count, and that they refuse a loss."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.record import ReferenceMismatchError
from benchmarks.harness.workload import Workload
from benchmarks.measures.serving import ServingOptions
from benchmarks.serving.asking import Asking, digest_of
from benchmarks.serving.client import Server, started_server
from benchmarks.serving.losses import kills, row_of, scale_downs, stops, updates
from engines.bundle.records import RecordError
from runtime import CancelToken, FaceDiffuser, OutputType, Request
from server.jobs.engine import EngineLostError, Step
from tests.doubles import pacing_engine
from tests.doubles.pacing_engine import PacingEngine, noise
from tests.server.serving import HIM, body, served

STEPS = 3


class Processes:
    """Engines' processes: as many as are wanted, each started again when it was killed."""

    def __init__(self, count: int) -> None:
        self.wanted, self.killed = count, 0
        self._running: list[subprocess.Popen[bytes]] = []

    def __call__(self) -> list[int]:
        self.killed += sum(each.poll() is not None for each in self._running)
        self._running = [each for each in self._running if each.poll() is None]
        while len(self._running) < self.wanted:
            words = [sys.executable, "-c", "import time; time.sleep(600)"]
            self._running.append(subprocess.Popen(words))
        return [each.pid for each in self._running]

    def close(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()


@pytest.fixture
def processes() -> Iterator[Processes]:
    found = Processes(1)
    yield found
    found.close()


@contextmanager
def served_by(engine: PacingEngine) -> Iterator[tuple[Server, dict[str, Any]]]:
    many: dict[str, Any] = {"tenant_jobs": 99, "tenant_pictures": 10**6, "tenant_steps": 10**9}
    with served(engine, **many) as http:
        port = int(http.url.rpartition(":")[2])
        yield Server(port=port, pid=0, ready_s=0.0), body(http.identity())


def expected(seed: int) -> str:
    return digest_of(np.asarray(noise(seed)))


def killed(engine: PacingEngine, processes: Processes, count: int = 2) -> Any:
    with served_by(engine) as (server, words):
        try:
            return kills(server, words, count, engines=processes, of=1, expected=expected)
        except ReferenceMismatchError as error:
            refused = error
    raise refused


def test_pictures_that_are_all_there_and_right_are_counted(processes: Processes) -> None:
    row = killed(PacingEngine(0.002), processes)
    processes()
    assert (row.kind, row.times, row.lost, row.wrong) == ("kill", 2, 0, 0)
    assert processes.killed == 2
    assert row.admitted >= 6
    assert row.drawn_again == 0
    assert 0 < row.longest_s <= row.took_s


class Again(PacingEngine):
    """Each picture is begun twice, as after the loss of an engine."""

    def _draw(self, requests: Any, cancel: CancelToken, tell: Callable[[Step], None]) -> None:
        super()._draw(requests, cancel, tell)
        super()._draw(requests, cancel, tell)


def test_a_picture_whose_steps_begin_anew_was_drawn_again(processes: Processes) -> None:
    row = killed(Again(0.002), processes, 1)
    # Half of the clients read events.
    assert row.admitted // 3 <= row.drawn_again < row.admitted


class Losing(PacingEngine):
    def _draw(self, requests: Any, cancel: CancelToken, tell: Callable[[Step], None]) -> None:
        if requests[0].seed in (2, 3):
            raise EngineLostError("gone")
        super()._draw(requests, cancel, tell)


def test_an_admitted_request_that_is_lost_is_refused(processes: Processes) -> None:
    with pytest.raises(ReferenceMismatchError, match=r"2 were lost \(engine_lost\)"):
        killed(Losing(0.002), processes, 1)


def test_a_picture_of_another_seed_is_refused(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing_engine, "noise", lambda seed: noise(9 if seed == 3 else seed))
    with pytest.raises(ReferenceMismatchError, match=r"1 pictures are not .* \[3\]"):
        killed(PacingEngine(0.002), processes, 1)


@pytest.mark.parametrize("outcome", ["engine_lost", "client_gone", "stopped"])
def test_what_the_servers_own_log_tells_counts_too(outcome: str) -> None:
    server = Server(port=1, pid=1, ready_s=0.0, jobs=Counter({"done": 3, outcome: 1}))
    with pytest.raises(ReferenceMismatchError, match=outcome):
        row_of("stop", 1, [Asking({}, [1], 1)], [server], expected, 0.0)


def test_seeds_that_give_one_picture_would_show_nothing(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing_engine, "noise", lambda seed: noise(1))
    with (
        served_by(PacingEngine(0.002)) as (server, words),
        pytest.raises(ReferenceMismatchError, match="nothing"),
    ):
        kills(server, words, 1, engines=processes, of=1, expected=lambda seed: expected(1))


def test_fewer_clients_are_followed_by_fewer_engines(processes: Processes) -> None:
    with served_by(PacingEngine(0.005)) as (server, words):
        asked_at = time.monotonic()

        def engines() -> list[int]:
            return [1, 2] if time.monotonic() - asked_at < 0.5 else [1]

        row = scale_downs(server, words, 1, engines=engines, of=2, expected=expected)
    assert (row.kind, row.times, row.lost) == ("scale-down", 1, 0)
    assert row.took_s > 0.5


@pytest.fixture
def embedded(golden_bundle: Path) -> Iterator[Callable[[int], str]]:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:

        def digest(seed: int) -> str:
            drawn = opened.generate(Request(**{**REQUEST, "seed": seed}))
            return digest_of(drawn.images[0])

        yield digest


REQUEST: dict[str, Any] = {
    "prompt": Workload(people=1).request().prompt, "references": [HIM], "num_inference_steps": 20,
    "height": 64, "width": 64, "output_type": OutputType.PIL,
}  # fmt: skip


def words_for(server: Server) -> dict[str, Any]:
    with server.client() as client:
        people = [client.identity(HIM)]
    words = {name: REQUEST[name] for name in ("prompt", "num_inference_steps", "height", "width")}
    return {**words, "identities": people}


@pytest.mark.slow
def test_a_server_that_is_stopped_under_load_loses_nothing(
    golden_bundle: Path, embedded: Callable[[int], str]
) -> None:
    def start() -> AbstractContextManager[Server]:
        return started_server(golden_bundle, "--threads", 1, "--provider", "onnxruntime-cpu")

    row = stops(start, words_for, 1, embedded)
    assert (row.kind, row.lost, row.wrong) == ("stop", 0, 0)
    assert row.admitted >= 2


@pytest.mark.slow
def test_a_server_that_takes_over_loses_nothing(
    golden_bundle: Path, embedded: Callable[[int], str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FACE_DIFFUSER_IDENTITY_KEY", "A" * 43 + "=")

    def start() -> AbstractContextManager[Server]:
        return started_server(
            golden_bundle, "--threads", 1, "--provider", "onnxruntime-cpu", "--store",
            tmp_path / "store.sqlite",
        )  # fmt: skip

    row = updates(start, words_for, 1, embedded)
    assert (row.kind, row.lost, row.wrong) == ("update", 0, 0)
    assert row.admitted >= 5


@pytest.mark.parametrize("engines", [None, 1])
def test_engines_are_killed_where_there_are_some(engines: int | None) -> None:
    with pytest.raises(RecordError, match="--engines 2"):
        ServingOptions(what=("memory", "kill"), engines=engines)
