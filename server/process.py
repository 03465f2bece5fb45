"""The server's process: uvicorn, and an end that loses no admitted job."""

from __future__ import annotations

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI

from server.config import ServerConfig
from server.logs import tell
from server.services import Services

# Above the 60 s after which balancers close an idle connection: who closes first loses a request.
_KEEP_ALIVE_S = 75


class DrainingServer(uvicorn.Server):
    """On the first signal the server is not ready any more, lets its jobs end, then stops; on the
    second one it ends its jobs after their step; on the third it stops at once."""

    def __init__(self, app: FastAPI, config: ServerConfig) -> None:
        settings = uvicorn.Config(
            app, host=config.host, port=config.port, log_config=None, access_log=False,
            server_header=False, timeout_graceful_shutdown=5,
            timeout_keep_alive=_KEEP_ALIVE_S, lifespan="on",
        )  # fmt: skip
        super().__init__(settings)
        self._app, self._told = app, config
        self._signals = 0
        self._ending: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        if not self.started or self._signals > 2:
            self.should_exit = self.force_exit = True
            return
        services: Services = self._app.state.services
        ending = self._drain(services) if self._signals == 1 else self._stop(services)
        self._ending.add(asyncio.get_running_loop().create_task(ending))

    async def _drain(self, services: Services) -> None:
        tell("draining")
        try:
            async with asyncio.timeout(self._told.drain_s):
                await services.table.drained()
        except TimeoutError:
            tell("drain_ended", reason="drain_s is over")
        # Load balancers ask /readyz while the port is still open.
        await asyncio.sleep(self._told.notice_s)
        await self._stop(services)

    async def _stop(self, services: Services) -> None:
        await services.table.stopped()
        self.should_exit = True
