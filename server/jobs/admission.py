"""From what is asked for to an admitted job: its seed, its limits, and what was asked before."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime import Request
from server.config import ServerConfig
from server.identities.people import Kept
from server.jobs.engine import EngineClient
from server.jobs.job import Job, Order, State
from server.jobs.table import JobTable
from server.pictures import Format
from server.problem import Problem
from server.store.admissions import Claim, Refusal, Repeat
from server.tenants import Priority, Tenant

# Of a cancelled job, at most, until its step has ended.
_LAST_STEP_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a tenant asks for, before it is an order.

    request: makes the runtime's, for a seed. seed: None draws one. content: what tells this wish
    from others, of which a digest is kept. key: the client's Idempotency-Key.
    """

    request: Callable[[int], Request]
    seed: int | None
    content: Sequence[bytes]
    key: str | None
    people: frozenset[str] = frozenset()
    priority: Priority | None = None
    timeout_s: float | None = None
    attached: bool = True
    previews: bool = False
    kind: Format = "png"


class Admission:
    """The way into the table of jobs: one wish after the other, as the store is asked between what
    is looked at and what is done."""

    def __init__(
        self, engine: EngineClient, table: JobTable, kept: Kept, config: ServerConfig
    ) -> None:
        self._engine, self._table, self._config = engine, table, config
        self._store, self._digest = kept.store, kept.vault.digest
        self._admissions = kept.store.admissions
        self._turn = asyncio.Lock()

    async def admit(self, tenant: Tenant, wish: Wish) -> Job:
        """The job of a wish: a new one, or the one that the same key was used for.

        A new try at a job that failed or was cancelled, or that another server has, has its seed,
        and so draws its picture. Raises Problem (403; 409 and 422 for a key; 429 for a tenant's
        limits, 503 for the server's), RequestError and StoreError.
        """
        async with self._turn:
            self._table.check_open()
            key, fingerprint = self._digests(tenant, wish)
            known = None if key is None else await self._used_for(key, fingerprint)
            if known is not None and (job := self._still_wanted(tenant, known)) is not None:
                return job
            seed = known.seed if known is not None else wish.seed
            seed = secrets.randbelow(2**32) if seed is None else seed
            order = self._order(tenant, wish, seed)
            self._table.check_room()
            job_id = f"job_{secrets.token_urlsafe(16)}"
            claim = Claim(
                tenant=tenant.name, key=key, known=known,
                repeat=Repeat(fingerprint=fingerprint, seed=seed, job=job_id),
                amounts={"pictures": order.request.num_images, "steps": order.image_steps},
                lasts_s=order.timeout_s + _LAST_STEP_S,
            )  # fmt: skip
            refusal = await self._store.call(self._admissions.admit, claim)
            if refusal is not None:
                raise self._refused(refusal)
            try:
                return self._table.admit(tenant, order, job_id)
            except Problem:
                self._store.later(self._admissions.end, job_id)
                raise

    async def cancel_elsewhere(self, tenant: Tenant, job_id: str) -> bool:
        """Have another server of the store cancel a tenant's job; whether there is one."""
        return await self._store.call(self._admissions.cancel, tenant.name, job_id)

    async def sweep(self) -> None:
        """Cancel what other servers were asked to, and forget what is old."""
        self._table.cancel_all(await self._store.call(self._admissions.cancelled))
        await self._store.call(self._admissions.sweep)

    def _digests(self, tenant: Tenant, wish: Wish) -> tuple[bytes | None, bytes]:
        if wish.key is None:
            return None, b""
        return self._digest(tenant.name.encode(), wish.key.encode()), self._digest(*wish.content)

    async def _used_for(self, key: bytes, fingerprint: bytes) -> Repeat | None:
        found = await self._store.call(self._admissions.used_for, key)
        if found is not None and found.fingerprint != fingerprint:
            raise Problem(
                422, "idempotency_key_reused",
                "this Idempotency-Key was used for another request; take a new one",
            )  # fmt: skip
        return found

    def _still_wanted(self, tenant: Tenant, known: Repeat) -> Job | None:
        try:
            job = self._table.job(tenant, known.job)
        except Problem:
            return None
        lost = job.state in (State.CANCELLED, State.FAILED) or job.cancelled_at is not None
        return None if lost else job

    def _order(self, tenant: Tenant, wish: Wish, seed: int) -> Order:
        # The lower of two; a key may have less than normal.
        usual = max(Priority.NORMAL, tenant.priority, key=lambda each: each.rank)
        priority = wish.priority or usual
        if tenant.priority.rank > priority.rank:
            raise Problem(
                403, "priority", f"this key's jobs have at most the priority {tenant.priority}"
            )
        request, longest_s = wish.request(seed), self._config.timeout_s
        self._check(request)
        return Order(
            request=request,
            people=wish.people,
            priority=priority,
            timeout_s=min(longest_s, wish.timeout_s or longest_s),
            attached=wish.attached,
            previews=wish.previews,
            kind=wish.kind,
        )

    def _refused(self, refusal: Refusal) -> Problem:
        match refusal.reason:
            case "key":
                message = "this Idempotency-Key was used for the same request just now"
                return self._table.refused(409, "idempotency_key_in_use", message, 1.0)
            case "jobs":
                message = f"{self._config.tenant_jobs} of your jobs wait or run"
                return self._table.refused(429, "jobs", message, self._table.job_s)
            case allowance:
                message, wait_s = f"these are your {allowance} of this minute", refusal.wait_s
                return self._table.refused(429, allowance, message, wait_s or 1.0)

    def _check(self, request: Request) -> None:
        native_px, most = self._engine.native_px, self._config.max_pixels
        height, width = (size or native_px for size in (request.height, request.width))
        if (pixels := height * width * request.num_images) > most:
            raise Problem(
                400, "too_large",
                f"{request.num_images} images of {width}x{height} px are {pixels} pixels, this "
                f"server draws {most} in one job; ask for fewer or smaller ones",
            )  # fmt: skip
        self._engine.check(request)
