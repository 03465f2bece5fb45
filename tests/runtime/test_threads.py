"""One open FaceDiffuser in many threads: turns, cancelling and closing; nobody gets another's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import threads as engine_threads
from runtime import CancelledError, FaceDiffuser, FaceDiffuserError, RequestError, StepInfo
from tests.runtime.small_request import HER, HIM, small


@pytest.fixture(params=["onnxruntime-cpu", "openvino"])
def face_diffuser(request: pytest.FixtureRequest, golden_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(golden_bundle, provider=request.param, threads=1) as opened:
        yield opened


@pytest.fixture
def on_onnxruntime(golden_bundle: Path) -> Iterator[FaceDiffuser]:
    with FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1) as opened:
        yield opened


def test_mixed_calls_of_four_threads_give_what_each_gives_alone(
    face_diffuser: FaceDiffuser,
) -> None:
    requests = [
        small(),
        small(references=[HER]),
        small(references=[HER], width=128, seed=6),
        small(scheduler="pndm", guidance_rule="released"),
    ]
    alone = [face_diffuser.generate(each).array.copy() for each in requests]
    people = [face_diffuser.encode_reference(each).embeds.copy() for each in (HIM, HER)]

    def differs(number: int) -> bool:
        if number % 3 == 0:
            found = face_diffuser.encode_reference((HIM, HER)[number % 2]).embeds
            return not np.array_equal(found, people[number % 2])
        which = number % len(requests)
        return not np.array_equal(face_diffuser.generate(requests[which]).array, alone[which])

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(differs, range(36))) == 0


def test_a_drawing_within_on_step_changes_neither_picture(face_diffuser: FaceDiffuser) -> None:
    outer, inner = small(), small(references=[HER])
    alone = [face_diffuser.generate(each).array.copy() for each in (outer, inner)]
    found: list[Any] = []

    def draw_another(info: StepInfo) -> None:
        if info.step == 1:
            found.append(face_diffuser.generate(inner).array)

    nested = face_diffuser.generate(outer, on_step=draw_another).array
    np.testing.assert_array_equal(nested, alone[0])
    np.testing.assert_array_equal(found[0], alone[1])


def test_a_backend_that_cannot_nest_says_so(
    on_onnxruntime: FaceDiffuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_onnxruntime._drawn_on, "nests", False)
    with pytest.raises(RequestError, match="one picture at a time"):
        on_onnxruntime.generate(
            small(), on_step=lambda _: on_onnxruntime.encode_reference(HIM) is None
        )
    assert on_onnxruntime.generate(small()).array.any()


def test_a_token_that_any_thread_sets_cancels_after_the_step(
    on_onnxruntime: FaceDiffuser,
) -> None:
    token, steps = threading.Event(), []

    def stop(info: StepInfo) -> None:
        steps.append(info.step)
        if info.step == 1:
            setter = threading.Thread(target=token.set)
            setter.start()
            setter.join()

    with pytest.raises(CancelledError, match="step 2 of 3"):
        on_onnxruntime.generate(small(), on_step=stop, cancel=token)
    assert steps == [0, 1]
    with pytest.raises(CancelledError, match="before the first step"):
        on_onnxruntime.generate(small(), cancel=token)


def test_a_token_cancels_a_call_that_waits_for_its_turn(on_onnxruntime: FaceDiffuser) -> None:
    token = threading.Event()

    def other_call() -> None:
        with pytest.raises(CancelledError, match="waited for its turn"):
            on_onnxruntime.generate(small(), cancel=token)

    def wait_for_the_other(info: StepInfo) -> None:
        if info.step == 0:
            other = threading.Thread(target=other_call)
            other.start()
            token.set()
            other.join(30)
            assert not other.is_alive()

    on_onnxruntime.generate(small(), on_step=wait_for_the_other)


@pytest.mark.parametrize("answer", [False, np.bool_(False), 0])  # noqa: FBT003
def test_any_falsy_answer_cancels(answer: object, on_onnxruntime: FaceDiffuser) -> None:
    with pytest.raises(CancelledError, match="step 1 of 3"):
        on_onnxruntime.generate(small(), on_step=lambda _: answer)


def test_a_callback_cannot_change_the_picture(face_diffuser: FaceDiffuser) -> None:
    def spoil(info: StepInfo) -> None:
        info.latents[...] = 0

    expected = face_diffuser.generate(small()).array
    np.testing.assert_array_equal(face_diffuser.generate(small(), on_step=spoil).array, expected)


def test_closing_in_a_callback_ends_the_run_and_stays_closed(golden_bundle: Path) -> None:
    face_diffuser = FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1)
    with pytest.raises(FaceDiffuserError, match="is closed"):
        face_diffuser.generate(small(), on_step=lambda _: face_diffuser.close())
    with pytest.raises(FaceDiffuserError, match="is closed"):
        face_diffuser.generate(small())
    assert not face_diffuser._drawn_on._engines._engines  # type: ignore[attr-defined]


def test_closing_in_another_thread_ends_the_run_first(golden_bundle: Path) -> None:
    face_diffuser = FaceDiffuser.open(golden_bundle, provider="onnxruntime-cpu", threads=1)
    closer = threading.Thread(target=face_diffuser.close)

    def start_closing(info: StepInfo) -> None:
        if info.step == 0:
            closer.start()
            closer.join(0.05)
            assert closer.is_alive()  # it waits for this run

    with pytest.raises(FaceDiffuserError, match="is closed"):
        face_diffuser.generate(small(), on_step=start_closing)
    closer.join(30)
    assert not face_diffuser._drawn_on._engines._engines  # type: ignore[attr-defined]


def test_a_cancelled_task_stops_drawing(on_onnxruntime: FaceDiffuser) -> None:
    steps: list[int] = []

    async def cancelled_after_a_step() -> None:
        first = asyncio.Event()
        loop = asyncio.get_running_loop()

        def count(info: StepInfo) -> None:
            steps.append(info.step)
            loop.call_soon_threadsafe(first.set)

        request = small(num_inference_steps=200)
        task = asyncio.create_task(on_onnxruntime.generate_async(request, on_step=count))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The task has ended, and so has the drawing: this one does not wait for it.
        assert (await on_onnxruntime.generate_async(small())).array.any()

    asyncio.run(cancelled_after_a_step())
    assert 1 <= len(steps) < 200


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_a_number_of_threads_is_checked(threads: Any, golden_bundle: Path) -> None:
    for provider in ("onnxruntime-cpu", "openvino"):
        with pytest.raises(RequestError, match="threads must be a whole number from 1"):
            FaceDiffuser.open(golden_bundle, provider=provider, threads=threads)


def test_no_more_threads_are_started_than_processors_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_threads, "processors", lambda: 2)
    assert engine_threads.checked_threads(np.int64(64)) == 2
