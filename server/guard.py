"""What every request passes: its size, where it comes from, its id, its line in the log."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.config import ServerConfig, is_loopback
from server.logs import tell, tell_defect
from server.metrics import Metrics
from server.problem import Problem
from server.traces import continued

# No script, style or picture of any other origin, and no page around ours.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ID = re.compile(r"[\w.-]{1,64}")


class Guard:
    """An ASGI application around the server's own."""

    def __init__(self, app: ASGIApp, *, config: ServerConfig) -> None:
        self._app, self._config = app, config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = MutableHeaders(scope=message)
                more["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    more.setdefault(name, value)
            await send(message)

        try:
            refusal = self._refusal(headers)
            if refusal is not None:
                await _answer(refusal)(scope, receive, send_more)
            else:
                with continued(headers):
                    await self._app(scope, self._bounded(receive), send_more)
        except Exception as error:
            tell_defect(error, request=request_id)
            if status:
                raise
            defect = Problem(500, "internal", "the server has a defect; its log tells where")
            await _answer(defect)(scope, receive, send_more)
        finally:
            # In the loop's next turn: what was sent leaves at the end of this one.
            took_s, loop = time.monotonic() - started, asyncio.get_running_loop()
            loop.call_soon(self._note, scope, request_id, status, took_s)

    def _refusal(self, headers: Headers) -> Problem | None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._config.keys is None and not is_loopback(host):
            # Another site's name that leads here would make this page that site's own.
            return Problem(403, "host", "this server is for this machine: ask it as 127.0.0.1")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return Problem(403, "origin", "pages of other sites may not use this server")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most_nbytes:
            return self._too_large()
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """The same bytes, until there are too many of them."""
        nbytes = 0

        async def receive_some() -> Message:
            nonlocal nbytes
            message = await receive()
            nbytes += len(message.get("body", b""))
            if nbytes > self._most_nbytes:
                raise self._too_large()
            return message

        return receive_some

    @property
    def _most_nbytes(self) -> int:
        return self._config.max_upload_mib << 20

    def _too_large(self) -> Problem:
        most = self._config.max_upload_mib
        return Problem(413, "too_large", f"a request's body has at most {most} MiB")

    def _note(self, scope: Scope, request_id: str, status: int, took_s: float) -> None:
        # The pattern, not the path, which has ids in it.
        route = getattr(scope.get("route"), "path", "other")
        metrics: Metrics | None = getattr(
            getattr(scope["app"].state, "services", None), "metrics", None
        )
        if metrics is not None:
            metrics.requests.labels(route, str(status)).inc()
        tell("request", request=request_id, method=scope["method"], route=route, status=status,
             took_ms=round(1e3 * took_s, 1))  # fmt: skip


def _answer(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.document(), problem.status_code, dict(problem.headers or {}))
