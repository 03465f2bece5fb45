"""/v1/identities: people that a tenant has uploaded."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from server.identities.vault import Row
from server.problem import Problem
from server.routes.answers import errors
from server.routes.uploads import FILE, form, upload_of
from server.services import Asking, Shared

router = APIRouter(prefix="/v1/identities", tags=["identities"], responses=errors(401, 403, 503))

_FORM = form(
    ["photo", "consent"],
    {
        "photo": FILE,
        "consent": {"type": "string", "pattern": r"\S", "maxLength": 200},
        "ttl_s": {"type": "number", "minimum": 1},
    },
    photo={"contentType": "image/png, image/jpeg, image/webp"},
)


class IdentityAnswer(BaseModel):
    """Times are seconds since 1970."""

    id: str
    created_at: float
    expires_at: float
    consent: str


class IdentityList(BaseModel):
    data: list[IdentityAnswer]


@router.post(
    "", status_code=201, responses=errors(400, 413, 415, 429, 500, 503, 504), openapi_extra=_FORM
)
async def add(request: Request, services: Shared, tenant: Asking) -> IdentityAnswer:
    """Encode a photo; only the embedding is kept, encrypted. `consent` says who agreed to it, in
    the caller's words, such as "self" or a reference to a form."""
    upload = await upload_of(request)
    photos, consent = upload.files.get("photo", []), upload.words.get("consent", "")
    if len(photos) != 1:
        raise Problem(400, "photo", f"send one file as `photo`, got {len(photos)}")
    if not consent.strip() or len(consent) > 200:
        raise Problem(
            400, "consent",
            "a person must have agreed: say how in `consent`, in 1 to 200 characters, "
            'for example "self"',
        )  # fmt: skip
    row = await services.people.add(
        tenant.name, photos[0], ttl_s=_ttl_s(upload.words.get("ttl_s")), consent=consent
    )
    return _answer(row)


@router.get("")
async def listed(services: Shared, tenant: Asking) -> IdentityList:
    """A tenant's identities, the oldest first."""
    return IdentityList(data=list(map(_answer, await services.people.listed(tenant.name))))


@router.get("/{identity_id}", responses=errors(404))
async def row(identity_id: str, services: Shared, tenant: Asking) -> IdentityAnswer:
    """When it was made, and when it ends."""
    return _answer(await services.people.row(tenant.name, identity_id))


@router.delete("/{identity_id}", status_code=204, responses=errors(404))
async def remove(identity_id: str, services: Shared, tenant: Asking) -> Response:
    """Delete it; jobs that draw it end, and pictures of it that are still kept are dropped."""
    await services.people.remove(tenant.name, identity_id)
    return Response(status_code=204)


def _ttl_s(words: str | None) -> float | None:
    if words is None or not words.strip():
        return None
    try:
        ttl_s = float(words)
    except ValueError:
        ttl_s = -1.0
    if not 1 <= ttl_s < float("inf"):
        raise Problem(400, "ttl_s", "ttl_s must be a number of seconds, 1 or more")
    return ttl_s


def _answer(row: Row) -> IdentityAnswer:
    return IdentityAnswer(
        id=row.id, created_at=row.created, expires_at=row.expires, consent=row.consent
    )
