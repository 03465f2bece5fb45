"""The trials of the serving benchmark: overhead, load, cancelling, memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.analysis.stats import paired_ratio, summary
from benchmarks.harness.memory import rss_nbytes
from benchmarks.serving.client import Answer, Client, Server, ServerFailedError, refuses
from benchmarks.serving.record import CancelRow, LoadRow, MemoryRow, OverheadRow
from runtime import Result

Body = dict[str, Any]
# A round of the comparison with the embedded loop: enough that its ends weigh little.
_ROUND = 5
_CLIENTS = 64
_MANY_STEPS = 900
_IN_TIME_S = 0.05
_MEMORY_EACH = 100


def overhead(server: Server, body: Body, rounds: int, draw: Callable[[], Result]) -> OverheadRow:
    """Rounds in turns of the same pictures: embedded, over HTTP, and over HTTP one by one."""
    embedded_s, http_s, alone, calls = [], [], [], []
    with ThreadPoolExecutor(2) as threads, server.client() as client:
        for _ in range(rounds):
            started = time.perf_counter()
            calls += [_beside_ms(draw) for _ in range(_ROUND)]
            embedded_s.append(time.perf_counter() - started)
            started = time.perf_counter()
            list(threads.map(lambda _: _drawn(server, body), range(_ROUND)))
            http_s.append(time.perf_counter() - started)
            alone += [_checked(client.ask("POST", "/v1/pictures", body)) for _ in range(_ROUND)]
    engine, encode, beside = zip(*map(_parts_ms, alone), strict=True)
    call_ms, ratio = summary(calls).p50, paired_ratio(embedded_s, http_s)
    seen = summary([each - call_ms for each in beside])
    return OverheadRow(
        pictures=len(alone),
        engine_p50_ms=summary(engine).p50,
        encode_p50_ms=summary(encode).p50,
        call_p50_ms=call_ms,
        overhead_p50_ms=seen.p50,
        overhead_p99_ms=seen.p99,
        ratio=ratio.ratio,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
    )


def load(
    server: Server, body: Body, *, offered: float, alone_s: float, requests: int, seed: int
) -> LoadRow:
    """Requests at random times; goodput counts what came within three times a picture alone."""
    gaps = np.random.default_rng(seed).exponential(alone_s / offered, requests)
    within_s, started = 3 * alone_s, time.perf_counter()
    times = started + np.cumsum(gaps)

    def ask(when: float) -> Answer:
        time.sleep(max(0.0, when - time.perf_counter()))
        with server.client() as client:
            return client.ask("POST", "/v1/pictures", body)

    with ThreadPoolExecutor(_CLIENTS) as threads:
        answers = list(threads.map(ask, times))
    took_s = time.perf_counter() - started
    drawn = [each.took_s for each in answers if each.status == 200]
    refused = sum(refuses(each.status, each.headers) for each in answers)
    seen = summary([1e3 * each for each in drawn]) if drawn else None
    return LoadRow(
        offered=offered,
        requests=requests,
        drawn=len(drawn),
        refused=refused,
        failed=requests - len(drawn) - refused,
        pictures_per_s=len(drawn) / took_s,
        goodput_per_s=sum(each <= within_s for each in drawn) / took_s,
        within_s=within_s,
        p50_ms=None if seen is None else seen.p50,
        p90_ms=None if seen is None else seen.p90,
        p99_ms=None if seen is None else seen.p99,
    )


def cancels(server: Server, body: Body, count: int, *, by: str) -> CancelRow:
    """Jobs of many steps that are ended after their first ones. by: "delete" or "hang-up"."""
    took_s, steps_s = [], []
    with server.client() as operator:
        for _ in range(count):
            before = operator.metric('facediffuser_jobs_total{outcome="cancelled"}')
            # A step is timed up to its end by the events; the longest seen is the bound's.
            job, step_s, events = _running(server, body)
            started = time.perf_counter()
            if by == "delete":
                operator.ask("DELETE", f"/v1/pictures/{job}")
            else:
                events.close()
            while operator.metric('facediffuser_jobs_total{outcome="cancelled"}') == before:
                if time.perf_counter() - started > 60:
                    raise ServerFailedError("a cancelled job did not end within a minute")
            took_s.append(time.perf_counter() - started)
            steps_s.append(step_s)
            events.close()
    step_s = max(steps_s)
    seen = summary([1e3 * each for each in took_s])
    in_time = sum(each <= step_s + _IN_TIME_S for each in took_s)
    return CancelRow(
        kind=by, count=count, in_time=in_time, step_ms=1e3 * step_s, p50_ms=seen.p50,
        p99_ms=seen.p99,
    )  # fmt: skip


def memory(server: Server, body: Body, requests: int) -> MemoryRow:
    """Small pictures one after the other."""
    small = {**body, "num_inference_steps": 1, "height": 64, "width": 64}
    each_nbytes = [rss_nbytes(server.pid)]
    with server.client() as client:
        for number in range(1, requests + 1):
            _checked(client.ask("POST", "/v1/pictures", {**small, "seed": number}))
            if number % _MEMORY_EACH == 0 or number == requests:
                each_nbytes.append(rss_nbytes(server.pid))
    return MemoryRow(requests=requests, each=_MEMORY_EACH, rss_nbytes=tuple(each_nbytes))


class _Events:
    """A streamed job, read by a thread of its own until it is closed."""

    def __init__(self, server: Server, body: Body) -> None:
        self.job = ""
        self.steps: list[float] = []
        self.going = threading.Event()
        self._client: Client = server.client()
        self._events = self._client.events(body)

    def read_steps(self, count: int) -> None:
        for name, data in self._events:
            if name == "queued":
                self.job = str(data["id"])
            elif name == "step":
                self.steps.append(time.perf_counter())
                if len(self.steps) == count:
                    return
        raise ServerFailedError("a job ended before it could be cancelled")

    def close(self) -> None:
        self._events.close()


def _running(server: Server, body: Body) -> tuple[str, float, _Events]:
    """A job after its first steps, and how long the longest of them took."""
    events = _Events(server, {**body, "num_inference_steps": _MANY_STEPS, "stream": True})
    events.read_steps(4)
    step_s = float(np.diff(events.steps).max())
    return events.job, step_s, events


def _beside_ms(draw: Callable[[], Result]) -> float:
    """What an embedded call takes beside its engine's time."""
    started = time.perf_counter()
    total_ms = draw().timings_ms["total"]
    return 1e3 * (time.perf_counter() - started) - total_ms


def _drawn(server: Server, body: Body) -> Answer:
    with server.client() as client:
        return _checked(client.ask("POST", "/v1/pictures", body))


def _checked(answer: Answer) -> Answer:
    if answer.status != 200:
        raise ServerFailedError(f"a picture was answered with {answer.status}")
    return answer


def _parts_ms(answer: Answer) -> tuple[float, float, float]:
    """The engine's time, the encoder's, and what is left of the client's."""
    timings = answer.json()["timings_ms"]
    engine, encode = timings["total"], timings["encode"]
    return engine, encode, 1e3 * answer.took_s - engine - encode
