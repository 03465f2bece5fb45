"""/livez, /readyz, /metrics: for who operates the server. They need no key."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from server.problem import Problem
from server.routes.answers import errors
from server.services import Shared

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: str = "ok"


@router.get("/livez")
async def livez() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", responses=errors(503))
async def readyz(services: Shared) -> Health:
    """Jobs are admitted: the bundle is open and the server is not stopping."""
    if services.table.draining:
        raise Problem(503, "draining", "the server is stopping", retry_after_s=5)
    return Health()


@router.get(
    "/metrics", response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def metrics(services: Shared) -> Response:
    """Figures for Prometheus."""
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4")
