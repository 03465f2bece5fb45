"""Tenants' people: uploaded once, drawn by id, gone when they say so or when their time is over."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from runtime import Identity
from server.config import ServerConfig
from server.identities.vault import Row, SealError, Vault, key_needed, key_of, passing_key
from server.jobs.engine import EngineClient
from server.jobs.table import JobTable
from server.logs import tell
from server.metrics import Metrics
from server.problem import Problem, not_found
from server.store.store import Store

DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What servers share, and what reads the people in it."""

    store: Store
    vault: Vault

    @classmethod
    def open(cls, config: ServerConfig) -> Kept:
        """Raises ConfigError where there is a store and no key, or one of them cannot be read."""
        key = key_of(config.identity_key)
        if key is None and config.store is not None:
            raise key_needed()
        return cls(store=Store.open(config), vault=Vault(key or passing_key()))


class People:
    """What the routes ask about identities. Nothing of a photo outlives `add`."""

    def __init__(
        self,
        kept: Kept,
        engine: EngineClient,
        table: JobTable,
        config: ServerConfig,
        metrics: Metrics,
    ) -> None:
        self._vault, self._store = kept.vault, kept.store
        self._engine, self._table, self._config = engine, table, config
        self._rows = kept.store.identities
        self._metrics = metrics
        self._encoding = asyncio.Semaphore(config.queue)

    async def add(self, tenant: str, photo: bytes, *, ttl_s: float | None, consent: str) -> Row:
        """Encode a photo and keep what came out. Raises Problem and ReferenceImageError."""
        self._table.check_open()
        most = self._config.tenant_identities
        if len(await self.listed(tenant)) >= most:
            raise _too_many()
        if self._encoding.locked():
            raise Problem(503, "queue_full", "many photos wait already", retry_after_s=5)
        most_s = self._config.identity_days * DAY_S
        async with self._encoding:
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    identity = await self._engine.encode(photo)
            except TimeoutError:
                raise Problem(504, "timeout", "the engine was busy for too long") from None
        now = time.time()
        row = Row(
            tenant=tenant, id=f"id_{secrets.token_urlsafe(16)}", created=now,
            expires=now + min(most_s, most_s if ttl_s is None else ttl_s), consent=consent,
        )  # fmt: skip
        sealed = self._vault.sealed(row, identity)
        if not await self._store.call(self._rows.add, row, sealed, most=most):
            raise _too_many()
        tell("identity_added", identity=row.id, tenant=tenant, expires=round(row.expires))
        return row

    async def listed(self, tenant: str) -> list[Row]:
        return await self._store.call(self._rows.of_tenant, tenant, time.time())

    async def row(self, tenant: str, identity_id: str) -> Row:
        """Raises Problem 404."""
        return (await self._found(tenant, identity_id))[0]

    async def identities(self, tenant: str, ids: Sequence[str]) -> list[Identity]:
        """In their order. Raises Problem 404 and 409."""
        return [await self.identity(tenant, each) for each in ids]

    async def identity(self, tenant: str, identity_id: str) -> Identity:
        """Raises Problem 404, and 409 where the server has another key than it was sealed with."""
        row, sealed = await self._found(tenant, identity_id)
        try:
            return self._vault.opened(row, sealed)
        except SealError:
            raise Problem(
                409, "identity_unreadable", "this identity cannot be read; upload the photo again"
            ) from None

    async def remove(self, tenant: str, identity_id: str) -> None:
        """Delete the row, end the jobs that draw it, and drop the pictures that were drawn of it.

        Other servers of the store do so at their next sweep. Raises Problem 404.
        """
        if not await self._store.call(self._rows.remove, tenant, identity_id):
            raise not_found("identity")
        jobs = self._table.forget_person(tenant, identity_id)
        tell("identity_deleted", identity=identity_id, tenant=tenant, jobs=jobs)

    async def sweep(self) -> None:
        """The same for all whose time is over, or that another server removed."""
        call = self._store.call
        for row in await call(self._rows.remove_expired, time.time()):
            tell("identity_expired", identity=row.id, tenant=row.tenant)
        for tenant, people in self._table.people().items():
            for each in await call(self._rows.gone, tenant, people, time.time()):
                jobs = self._table.forget_person(tenant, each)
                tell("identity_gone", identity=each, tenant=tenant, jobs=jobs)
        self._metrics.identities.set(await call(self._rows.count))

    async def _found(self, tenant: str, identity_id: str) -> tuple[Row, bytes]:
        found = await self._store.call(self._rows.find, tenant, identity_id, time.time())
        if found is None:
            raise not_found("identity")
        return found


def _too_many() -> Problem:
    return Problem(
        429, "identities", "you have as many identities as you may; delete some", retry_after_s=60
    )
