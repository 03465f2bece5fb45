"""/v1/pictures: asking for a picture, watching it come, fetching it, ending it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response

from server.jobs.admission import Wish
from server.jobs.job import Job
from server.pictures import MEDIA_TYPES
from server.problem import Problem, not_found
from server.routes.answers import (
    EventStream,
    PictureAnswer,
    answer_of,
    ended_or_gone,
    errors,
    frames_of,
)
from server.routes.bodies import PictureBody
from server.services import Asking, Services, Shared

router = APIRouter(prefix="/v1/pictures", tags=["pictures"], responses=errors(401, 403, 503))

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ASKED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": PictureAnswer,
        "description": "JSON, the file or server-sent events, as the body asks",
        "content": {"image/png": _BINARY, "text/event-stream": {"schema": {"type": "string"}}},
    },
    202: {"model": PictureAnswer, "description": "admitted; see /v1/pictures/{job_id}"},
    **errors(400, 404, 409, 413, 422, 429, 499, 500, 503, 504),
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    **errors(404, 422),
}


@router.post("", responses=_ASKED, response_model=PictureAnswer)
async def draw(
    body: PictureBody,
    request: Request,
    services: Shared,
    tenant: Asking,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> Response:
    """Draw people in a scene. With an Idempotency-Key a repeated request is the same picture."""
    people = await services.people.identities(tenant.name, body.identities)
    if body.response == "png" and (body.stream or body.num_images > 1 or not body.wait):
        raise Problem(
            400, "response", 'response "png" is one picture, waited for; take "b64_json" otherwise'
        )
    wish = Wish(
        request=partial(body.request, people), seed=body.seed, key=idempotency_key,
        content=[body.model_dump_json().encode()], people=frozenset(body.identities),
        priority=body.priority, timeout_s=body.timeout_s, attached=body.wait,
        previews=body.preview,
    )  # fmt: skip
    job = await services.admission.admit(tenant, wish)
    if body.stream:
        return EventStream(services.table, job, partial(frames_of, job))
    if not body.wait:
        return _answer(job, 202)
    await finished(request, services, job)
    if body.response == "png":
        return _file(job, 0)
    return _answer(job)


@router.get("/{job_id}", responses=errors(404))
async def state(job_id: str, services: Shared, tenant: Asking) -> PictureAnswer:
    """How far it is, and its files once it is done."""
    job = services.table.job(tenant, job_id)
    job.collected = job.collected or job.ended
    return answer_of(job)


@router.get("/{job_id}/events", responses=_EVENTS, response_class=Response)
async def events(
    job_id: str,
    services: Shared,
    tenant: Asking,
    last_event_id: Annotated[int, Header(ge=0)] = 0,
) -> Response:
    """What happened to it and happens, as server-sent events, after `Last-Event-ID`."""
    job = services.table.job(tenant, job_id)
    after = min(last_event_id, len(job.log))
    return EventStream(services.table, job, partial(frames_of, job, after))


@router.get(
    "/{job_id}/images/{number}", responses={200: {"content": {"image/png": _BINARY}},
                                            **errors(404, 422)}, response_class=Response,
)  # fmt: skip
async def image(
    job_id: str, number: Annotated[int, Path(ge=0, le=15)], services: Shared, tenant: Asking
) -> Response:
    """One picture's file, which tells how it came about, but neither prompt nor people."""
    job = services.table.job(tenant, job_id)
    if job.drawn is None or number >= len(job.drawn.pictures):
        raise not_found("image")
    job.collected = True
    return _file(job, number)


@router.delete("/{job_id}", status_code=204, responses=errors(404))
async def remove(job_id: str, services: Shared, tenant: Asking) -> Response:
    """Cancel it, or forget it if it has ended."""
    try:
        services.table.forget(services.table.job(tenant, job_id))
    except Problem:
        if not await services.admission.cancel_elsewhere(tenant, job_id):
            raise
    return Response(status_code=204)


async def finished(request: Request, services: Services, job: Job) -> None:
    """Wait for a job. Raises its Problem, and Problem 499 for a client that is gone."""
    if not await ended_or_gone(request, services.table, job):
        raise Problem(499, "client_gone", "the client hung up")
    if job.problem is not None:
        raise job.problem


def _answer(job: Job, status: int = 200) -> Response:
    content = answer_of(job).model_dump_json()
    return Response(content, status, _headers(job), media_type="application/json")


def _headers(job: Job) -> dict[str, str]:
    seeds = [] if job.drawn is None else [each.seed for each in job.drawn.pictures]
    return {"X-Job-Id": job.id} | ({"X-Seed": str(seeds[0])} if seeds else {})


def _file(job: Job, number: int) -> Response:
    assert job.drawn is not None
    picture = job.drawn.pictures[number]
    name = f"face-diffuser-{picture.seed}.{job.kind}"
    headers = {**_headers(job), "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(picture.content, media_type=MEDIA_TYPES[job.kind], headers=headers)
