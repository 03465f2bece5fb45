"""The part of OpenAI's images API that this model can serve, for clients that speak it already."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from runtime import Identity, ReferenceImageError
from server.jobs.admission import Wish
from server.jobs.job import Event, Job
from server.problem import Problem
from server.routes.answers import EventStream, base64_of, errors, frame_of
from server.routes.bodies import DRAWN, DrawingBody, GenerationBody
from server.routes.pictures import finished
from server.routes.uploads import FILE, form, upload_of
from server.services import Asking, Services, Shared
from server.tenants import Tenant

router = APIRouter(prefix="/v1", tags=["openai"], responses=errors(401, 403))

Body = TypeVar("Body", bound=BaseModel)

MODEL = "face-diffuser"
_DRAWS = errors(400, 404, 409, 413, 415, 422, 429, 499, 500, 503, 504)
_EDIT_FORM = form(
    ["image", "prompt"],
    {
        "image": {"type": "array", "items": FILE, "minItems": 1, "maxItems": 8},
        "prompt": {"type": "string", "minLength": 1, "maxLength": 10_000},
        **{name: {"type": "string"} for name in ("size", "n", "seed", "output_format")},
    },
)


class ModelAnswer(BaseModel):
    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "face-diffuser"


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelAnswer]


@router.get("/models")
async def models(tenant: Asking) -> ModelList:
    """The one model of this server's bundle."""
    return ModelList(data=[ModelAnswer(id=MODEL)])


@router.get("/models/{name}", responses=errors(404))
async def model(name: str, tenant: Asking) -> ModelAnswer:
    """The same, by its name."""
    _check_model(name)
    return ModelAnswer(id=MODEL)


@router.post("/images/edits", responses=_DRAWS, openapi_extra=_EDIT_FORM, response_class=Response)
async def edits(request: Request, services: Shared, tenant: Asking) -> Response:
    """Draw the people of the photos, one for each <|image|>. The photos are used for this picture
    alone and kept nowhere. Request's own fields, such as num_inference_steps, may come along."""
    upload = await upload_of(request)
    if "mask" in upload.files or "mask" in upload.words:
        raise Problem(400, "mask", "this model draws people into new scenes; it takes no mask")
    photos = upload.files.get("image", [])
    if not photos:
        raise Problem(400, "image", "send a photo for each <|image|> of the prompt as `image`")
    body = _body_of({**upload.words, "identities": []})
    services.table.check_open()
    for number, photo in enumerate(photos, 1):
        try:
            await services.engine.check_photo(photo)
        except ReferenceImageError as error:
            raise Problem(400, "image", f"image {number}: {error.reason}") from error
    return await _drawn(request, services, tenant, body, "image_edit", photos, photos)


@router.post("/images/generations", responses=_DRAWS, response_class=Response)
async def generations(
    body: GenerationBody, request: Request, services: Shared, tenant: Asking
) -> Response:
    """Draw identities of /v1/identities; a prompt alone is no picture here."""
    if not body.identities:
        raise Problem(
            400, "identities",
            "this model draws given people: upload photos at /v1/identities and name them in "
            "`identities` (extra_body of OpenAI's client), or use images/edits",
        )  # fmt: skip
    people = await services.people.identities(tenant.name, body.identities)
    return await _drawn(request, services, tenant, body, "image_generation", people, ())


async def _drawn(
    request: Request,
    services: Services,
    tenant: Tenant,
    body: GenerationBody,
    name: str,
    references: Sequence[Identity | bytes],
    photos: Sequence[bytes],
) -> Response:
    if body.model is not None:
        _check_model(body.model)
    if body.response_format == "url":
        raise Problem(400, "response_format", "pictures come as b64_json; urls are not made")
    drawing = _drawing(body)
    streamed, partials = bool(body.stream), body.partial_images or 0
    wish = Wish(
        request=partial(drawing.request, references), seed=drawing.seed,
        key=request.headers.get("idempotency-key"),
        content=[body.model_dump_json().encode(), *photos], people=frozenset(body.identities),
        priority=body.priority, timeout_s=body.timeout_s, previews=streamed and partials > 0,
        kind=body.output_format or "png",
    )  # fmt: skip
    job = await services.admission.admit(tenant, wish)
    if streamed:
        return EventStream(services.table, job, partial(_frames, job, name, partials))
    await finished(request, services, job)
    assert job.drawn is not None
    data = [{"b64_json": base64_of(each.content)} for each in job.drawn.pictures]
    answer = {"created": int(time.time()), "data": data, "output_format": job.kind}
    return JSONResponse({**answer, "seeds": [each.seed for each in job.drawn.pictures]})


def _drawing(body: GenerationBody) -> DrawingBody:
    """OpenAI's words in ours: n and size."""
    words: dict[str, Any] = {name: getattr(body, name) for name in (*DRAWN, "seed")}
    if body.n is not None:
        words["num_images"] = body.n
    if body.size is not None and body.size != "auto":
        found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", body.size)
        if found is None:
            raise Problem(400, "size", 'size must be "auto" or WIDTHxHEIGHT in px, as 512x512')
        words["width"], words["height"] = map(int, found.groups())
    return _validated(DrawingBody, words)


def _body_of(words: dict[str, Any]) -> GenerationBody:
    """A form's words as a body."""
    return _validated(GenerationBody, words)


def _validated(kind: type[Body], words: dict[str, Any]) -> Body:
    try:
        return kind.model_validate(words)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Problem(400, where or "body", f"{where}: {first['msg']}") from None


async def _frames(job: Job, name: str, partials: int) -> AsyncIterator[bytes]:
    """A job's events as OpenAI's stream: some partial images, then the completed ones."""
    told = 0
    async for event in job.events():
        match event.name:
            case "preview" if told < partials and _is_due(event, told, partials):
                words = {"partial_image_index": told, **_picture(event, job)}
                yield frame_of(f"{name}.partial_image", _typed(f"{name}.partial_image", words))
                told += 1
            case "picture":
                words = {**_picture(event, job), "usage": _USAGE}
                yield frame_of(f"{name}.completed", _typed(f"{name}.completed", words))
            case "error" | "cancelled":
                assert job.problem is not None
                yield frame_of("error", job.problem.document())
            case _:
                pass


# Tokens are not counted here; OpenAI's clients want the numbers all the same.
_USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
          "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}  # fmt: skip


def _is_due(event: Event, told: int, partials: int) -> bool:
    """Partial images are spread evenly over the steps."""
    share: float = event.data["step"] / event.data["of"]
    return share >= (told + 1) / (partials + 1)


def _picture(event: Event, job: Job) -> dict[str, Any]:
    return {
        "b64_json": base64_of(event.data["b64_json"]),
        "created_at": int(time.time()),
        "output_format": "png" if event.name == "preview" else job.kind,
        "size": "auto", "quality": "auto", "background": "opaque",
    }  # fmt: skip


def _typed(name: str, words: dict[str, Any]) -> dict[str, Any]:
    return {"type": name, **words}


def _check_model(name: str) -> None:
    if name != MODEL:
        raise Problem(404, "model_not_found", f"there is one model here, {MODEL}")
