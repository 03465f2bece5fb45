"""The application: routes, errors and the page, around an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import compile_path
from starlette.staticfiles import StaticFiles

from engines.errors import FaceDiffuserError
from runtime.pictures.files import toolkit_version
from server.config import ServerConfig
from server.guard import Guard
from server.identities.people import Kept
from server.jobs.engine import EngineClient
from server.logs import tell_defect
from server.problem import Problem, not_found, problem_of
from server.routes import identities, openai, operations, pictures
from server.services import opened_services
from server.tenants import Authenticate, by_key, everyone

PAGE = Path(__file__).parent / "page"


def make_app(
    engine: EngineClient, config: ServerConfig, authenticate: Authenticate | None = None
) -> FastAPI:
    """An ASGI application that owns an engine and closes it when it ends.

    authenticate: says whose a request is, or None to refuse it; by default the config's file of
    keys, and without one everybody on this machine. Raises ConfigError.
    """
    hook = authenticate or (everyone if config.keys is None else by_key(config.keys))
    kept = Kept.open(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened_services(engine, kept, config, hook) as services:
            app.state.services = services
            yield

    # The usual pages of documentation would load scripts from elsewhere.
    app = FastAPI(
        title="Face-Diffuser", version=toolkit_version(), lifespan=lifespan, docs_url=None,
        redoc_url=None, separate_input_output_schemas=False,
    )  # fmt: skip
    for each in (pictures, identities, openai, operations):
        app.include_router(each.router)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(FaceDiffuserError, _refused)
    app.add_middleware(Guard, config=config)
    return app


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Which field is wrong and how; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(each) for each in first["loc"][1:])
    return await _refused(request, Problem(422, "invalid", f"{where or 'body'}: {first['msg']}"))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException) and not isinstance(error, Problem):
        problem = _no_route(request, error)
    else:
        problem = problem_of(error)
    if problem.status_code == 500:
        tell_defect(error, path=request.url.path)
    return JSONResponse(problem.document(), problem.status_code, dict(problem.headers or {}))


def _no_route(request: Request, error: HTTPException) -> Problem:
    """The framework's own: no such path, or no such method, which the page's files answer for."""
    if error.status_code not in (404, 405):
        return Problem(error.status_code, "http", str(error.detail))
    paths: dict[str, dict[str, object]] = request.app.openapi()["paths"]
    here = next(
        (methods for path, methods in paths.items() if _matches(path, request.url.path)), None
    )
    if here is None or ("get" in here and request.method == "GET"):
        return not_found("path")
    allowed = ", ".join(sorted(map(str.upper, here)))
    problem = Problem(405, "method", f"this path takes {allowed}")
    problem.headers = {"Allow": allowed}
    return problem


def _matches(pattern: str, path: str) -> bool:
    return compile_path(pattern)[0].fullmatch(path) is not None
