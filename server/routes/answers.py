"""Answers: JSON of jobs and identities, and server-sent events that notice a client's hang-up."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.jobs.job import Event, Job
from server.jobs.table import JobTable

# A line now and then keeps proxies from closing a stream while a step takes long.
_ALIVE_S = 15.0

Frames = Callable[[], AsyncIterator[bytes]]


class ErrorBody(BaseModel):
    type: str
    code: str
    message: str
    param: str | None
    retryable: bool


class ErrorAnswer(BaseModel):
    """Every error, in the shape that OpenAI's clients read."""

    error: ErrorBody


class PictureFile(BaseModel):
    seed: int
    b64_json: str


class SaliencyFile(BaseModel):
    """A PNG of latents' size: red TDM's saliency, green SDM's, blue the mask."""

    step: int
    b64_json: str


class PictureAnswer(BaseModel):
    """A job. state: queued, running, done, cancelled or failed."""

    id: str
    state: str
    steps_done: int
    images: list[PictureFile] = []
    saliency: list[SaliencyFile] = []
    seeds: list[int] = []
    timings_ms: dict[str, float] = {}
    provider: str | None = None
    bundle: str | None = None
    unread: dict[str, str] = {}
    error: ErrorBody | None = None


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's OpenAPI: the errors that it answers with."""
    return {status: {"model": ErrorAnswer} for status in statuses}


def answer_of(job: Job) -> PictureAnswer:
    """What is known of a job."""
    drawn, facts = job.drawn, {} if job.drawn is None else job.drawn.facts
    error = None if job.problem is None else ErrorBody(**job.problem.document()["error"])
    return PictureAnswer(
        id=job.id,
        state=job.state.value,
        steps_done=sum(event.name == "step" for event in job.log),
        images=[
            PictureFile(seed=each.seed, b64_json=base64_of(each.content))
            for each in (drawn.pictures if drawn else ())
        ],
        saliency=[
            SaliencyFile(step=each.step + 1, b64_json=base64_of(each.content))
            for each in (drawn.saliency if drawn else ())
        ],
        error=error,
        **facts,
    )


async def ended_or_gone(request: HttpRequest, table: JobTable, job: Job) -> bool:
    """Wait for a job's end, or for its client to hang up; whether the client is still there."""
    with table.followed(job):
        gone = asyncio.ensure_future(hung_up(request.receive))
        gone.add_done_callback(lambda _: job.wake())
        try:
            while not (job.ended or gone.done()):
                await job.changed()
            return job.ended
        finally:
            gone.cancel()


async def hung_up(receive: Receive) -> None:
    """Wait until the client is gone. It is told by the server, and asked for by nobody's clock:
    a look now and then would come too late for steps that are shorter than its pause."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A job's events as they come; the job is followed until its end or the client's."""

    media_type = "text/event-stream"

    def __init__(self, table: JobTable, job: Job, frames: Frames) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "X-Job-Id": job.id})
        del self.headers["content-length"]
        self._table, self._job, self._frames = table, job, frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._table.followed(self._job):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            sending = asyncio.ensure_future(self._send(send))
            gone = asyncio.ensure_future(hung_up(receive))
            try:
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
            finally:
                sending.cancel()
                gone.cancel()

    async def _send(self, send: Send) -> None:
        frames = self._frames()
        coming = asyncio.ensure_future(anext(frames, None))
        try:
            while True:
                await asyncio.wait({coming}, timeout=_ALIVE_S)
                if not coming.done():
                    await _send_body(send, b": alive\n\n")
                    continue
                if (frame := coming.result()) is None:
                    break
                await _send_body(send, frame)
                coming = asyncio.ensure_future(anext(frames, None))
        finally:
            coming.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_body(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def frame_of(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    """One server-sent event."""
    start = "" if number is None else f"id: {number}\n"
    return f"{start}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def frames_of(job: Job, after: int = 0) -> AsyncIterator[bytes]:
    """A job's events after a number, as they are documented."""
    async for event in job.events(after):
        yield frame_of(event.name, told(event), event.number)


def told(event: Event) -> dict[str, Any]:
    """An event's data as JSON."""
    return {
        name: base64_of(value) if isinstance(value, bytes) else value
        for name, value in event.data.items()
    }


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()
