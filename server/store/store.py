"""The store as the event loop uses it: calls in a thread of their own, in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from server.config import ConfigError, ServerConfig
from server.logs import tell
from server.store.admissions import Admissions
from server.store.database import Database, StoreError, opened
from server.store.identities import Identities

P = ParamSpec("P")
Answer = TypeVar("Answer")


class Store:
    """What one server has of what all share. Its parts are called through `call` and `later`, so
    that a database that is slow or gone holds up nobody but who asks for it. One that never waits
    is called at once: the way to a thread and back would take longer than its answer."""

    def __init__(self, database: Database, config: ServerConfig) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.identities = Identities(database)
        self.admissions = Admissions(
            database,
            most_jobs=config.tenant_jobs,
            a_minute={"pictures": config.tenant_pictures, "steps": config.tenant_steps},
        )

    @classmethod
    def open(cls, config: ServerConfig) -> Self:
        """Raises ConfigError for a store that cannot be opened, and NotInstalledError."""
        try:
            return cls(opened(config.store), config)
        except StoreError as error:
            raise ConfigError(error.reason) from error

    async def call(self, work: Callable[P, Answer], *words: P.args, **more: P.kwargs) -> Answer:
        """What the work gives. Raises StoreError."""
        if not self._database.waits:
            return work(*words, **more)
        return await asyncio.wrap_future(self._thread.submit(work, *words, **more))

    def later(self, work: Callable[P, object], *words: P.args, **more: P.kwargs) -> None:
        """Do it before all that is called from now on; a failure is told in the log alone."""
        if self._database.waits:
            self._thread.submit(_told, work, *words, **more)
        else:
            _told(work, *words, **more)

    def close(self) -> None:
        self._thread.shutdown()
        self._database.close()


def _told(work: Callable[P, object], /, *words: P.args, **more: P.kwargs) -> None:
    try:
        work(*words, **more)
    except Exception as error:
        tell("store_failed", error=type(error).__name__)
