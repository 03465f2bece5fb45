"""What the server does with what a replica sends, by a stand-in for Ray's handle; test_ray.py holds
the same against the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime import CancelledError, FaceDiffuser, FaceDiffuserError, RequestError, Result
from runtime.inputs.check import RequestCheck
from server.config import ConfigError, ServerConfig
from server.jobs.engine import EngineLostError, Step
from server.problem import problem_of
from tests.runtime.small_request import small

pytest.importorskip("ray")

from ray.exceptions import RayActorError

from server.cluster.application import opened_on_ray, resources
from server.cluster.engine import RayEngine
from server.cluster.replica import Begun, Raised, Replica, carried


class Stream:
    """What a call of the handle gives. waits: never comes to an end of itself."""

    def __init__(self, sent: list[Any], *, waits: bool = False) -> None:
        self._sent, self._waits = sent, waits
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[Any]:
        for each in self._sent:
            if isinstance(each, RayActorError):
                raise each
            yield each
        if self._waits:
            await asyncio.Event().wait()


class Handle:
    """Gives one stream after the other."""

    def __init__(self, *streams: Stream) -> None:
        self._left = list(streams)
        self.draw = self

    def options(self, *, stream: bool) -> Handle:
        assert stream
        return self

    def remote(self, requests: object, *, previews: Sequence[bool]) -> Stream:
        return self._left.pop(0)


class Drawn(Result):
    """A result that nobody drew."""

    def __init__(self) -> None:
        pass


def drawn(
    bundle: Path, *streams: Stream, cancel: threading.Event | None = None,
    on_step: Callable[[Step], None] = lambda _: None, redraws: int = 3,
) -> Result:  # fmt: skip
    config = ServerConfig(ray="local", engines=2, redraws=redraws)
    engine = RayEngine(Handle(*streams), RequestCheck.open(bundle), config)
    results: list[tuple[int, Result]] = []
    asyncio.run(
        engine.draw(
            [small()], cancel=cancel or threading.Event(), on_step=lambda _, step: on_step(step),
            on_result=lambda at, result: results.append((at, result)), previews=[False],
        )
    )  # fmt: skip
    [(at, result)] = results
    assert at == 0
    return result


FIRST = Step(step=0, num_steps=3, stage="scene")
STEP = (0, FIRST)


def test_steps_are_told_and_the_result_is_given(golden_bundle: Path) -> None:
    steps: list[Step] = []
    wanted = Drawn()
    found = drawn(golden_bundle, Stream([STEP, STEP, [wanted]]), on_step=steps.append)
    assert found is wanted
    assert steps == [FIRST, FIRST]


def test_a_lost_engine_is_replaced_as_often_as_the_config_says(golden_bundle: Path) -> None:
    wanted = Drawn()
    lost = [Begun(), STEP, RayActorError()]
    whole = [Begun(), STEP, [wanted]]
    assert drawn(golden_bundle, Stream(lost), Stream(whole), redraws=1) is wanted
    # An answer that ends without a picture is no picture either.
    assert drawn(golden_bundle, Stream([STEP]), Stream(whole), redraws=1) is wanted
    assert drawn(golden_bundle, *[Stream(lost)] * 3, Stream(whole)) is wanted
    with pytest.raises(EngineLostError, match="4 engines") as error:
        drawn(golden_bundle, *[Stream(lost)] * 4, Stream(whole))
    problem = problem_of(error.value)
    assert problem.status_code == 503
    assert problem.headers == {"Retry-After": "10"}


def test_an_engine_that_died_before_it_began_did_not_die_of_the_request(
    golden_bundle: Path,
) -> None:
    wanted, dead = Drawn(), Stream([RayActorError()])
    assert drawn(golden_bundle, dead, dead, Stream([Begun(), [wanted]]), redraws=0) is wanted


def test_a_job_that_waits_for_an_engine_can_be_cancelled(golden_bundle: Path) -> None:
    cancel, dead = threading.Event(), Stream([RayActorError()])
    threading.Timer(0.15, cancel.set).start()
    with pytest.raises(CancelledError):
        drawn(golden_bundle, *[dead] * 5, cancel=cancel)


def test_what_was_raised_is_raised_and_not_tried_again(golden_bundle: Path) -> None:
    with pytest.raises(RequestError, match="so and so"):
        drawn(golden_bundle, Stream([Raised(RequestError("so and so"))]), Stream([[Drawn()]]))


def test_cancelling_ends_the_stream(golden_bundle: Path) -> None:
    cancel, stream = threading.Event(), Stream([STEP], waits=True)
    with pytest.raises(CancelledError):
        drawn(golden_bundle, stream, cancel=cancel, on_step=lambda _: cancel.set())
    assert stream.cancelled


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("words of somebody")


def test_an_error_that_cannot_be_sent_is_told_by_its_kind_alone() -> None:
    assert carried(RequestError("a", fix="b")).error.args == ("a: b",)
    told = carried(Unpicklable(1, 2)).error
    assert isinstance(told, FaceDiffuserError)
    assert str(told) == "the engine raised Unpicklable"


def test_a_replica_takes_nothing_new_before_an_unwanted_drawing_has_ended(
    golden_bundle: Path,
) -> None:
    replica = Replica(str(golden_bundle), {"provider": "onnxruntime-cpu", "threads": 1})
    engine: FaceDiffuser = replica._face_diffuser

    async def one_step() -> int:
        steps = replica.draw([small(num_inference_steps=900)], previews=[False])
        assert await anext(steps) == Begun()
        sent = await anext(steps)
        assert isinstance(sent, tuple)
        first = sent[1]
        await steps.aclose()  # type: ignore[attr-defined]
        return first.step

    async def whole() -> list[Any]:
        return [each async for each in replica.draw([small()], previews=[True])]

    assert asyncio.run(one_step()) == 0
    assert replica._owner._work_queue.qsize() == 0
    begun, *steps, results = asyncio.run(whole())
    assert begun == Begun()
    assert [(at, each.step) for at, each in steps] == [(0, 0), (0, 1), (0, 2)]
    assert [type(each) for each in results] == [Result]
    _, refused = asyncio.run(_all(replica, small(references=[])))
    assert isinstance(refused, Raised)
    engine.close()


async def _all(replica: Replica, request: Any) -> list[Any]:
    return [each async for each in replica.draw([request], previews=[False])]


@pytest.mark.parametrize(
    ("settings", "cluster", "expected"),
    [
        ({}, {"CPU": 8.0}, {"num_cpus": 1.0, "num_gpus": 0.0}),
        ({"threads": 4}, {"CPU": 8.0, "GPU": 2.0}, {"num_cpus": 4.0, "num_gpus": 1.0}),
        ({"engine_gpus": 0.5}, {"GPU": 1.0}, {"num_cpus": 1.0, "num_gpus": 0.5}),
        ({"engine_gpus": 0.0}, {"GPU": 1.0}, {"num_cpus": 1.0, "num_gpus": 0.0}),
    ],
)
def test_an_engine_takes_its_threads_and_a_gpu_where_there_is_one(
    settings: dict[str, Any], cluster: dict[str, float], expected: dict[str, float]
) -> None:
    assert resources(ServerConfig(ray="local", **settings), cluster) == expected


@pytest.mark.parametrize("settings", [{"engines": 2}, {"engine_gpus": 1.0}, {"engines_least": 1}])
def test_settings_of_a_cluster_want_one(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--ray"):
        ServerConfig(**settings)


def test_a_cluster_that_does_not_let_the_server_in_is_told(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(**options: object) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr("server.cluster.application.ray.init", refuses)
    with pytest.raises(ConfigError, match="here:6379: Failed") as error:
        opened_on_ray(golden_bundle, ServerConfig(ray="here:6379"))
    assert "RAY_AUTH_MODE=token" in str(error.value.fix)


def test_more_engines_cannot_stay_than_there_are() -> None:
    with pytest.raises(ConfigError, match="engines_least 3 are more than 2"):
        ServerConfig(ray="local", engines=2, engines_least=3)
