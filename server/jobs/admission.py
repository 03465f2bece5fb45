"""From what is asked for to an admitted job: its seed, its limits, and what was asked before."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime import Request
from server.config import ServerConfig
from server.jobs.engine import EngineClient
from server.jobs.idempotency import Keys, Repeat
from server.jobs.job import Job, Order, State
from server.jobs.table import JobTable
from server.pictures import Format
from server.problem import Problem
from server.tenants import Priority, Tenant


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
    """The way into the table of jobs."""

    def __init__(self, engine: EngineClient, table: JobTable, config: ServerConfig) -> None:
        self._engine, self._table, self._config = engine, table, config
        self._keys = Keys()

    def admit(self, tenant: Tenant, wish: Wish) -> Job:
        """The job of a wish: a new one, or the one that the same key was used for.

        A new try at a job that failed or was cancelled has its seed, and so draws its picture.
        Raises Problem and RequestError.
        """
        self._table.check_open()
        fingerprint = hashlib.sha256(b"\0".join(wish.content)).digest()
        repeat = None
        if wish.key is not None:
            repeat = self._keys.find(tenant.name, wish.key, fingerprint)
        if repeat is not None and (job := self._still_wanted(tenant, repeat)) is not None:
            return job
        seed = repeat.seed if repeat is not None else wish.seed
        seed = secrets.randbelow(2**32) if seed is None else seed
        request = wish.request(seed)
        self._check(request)
        longest_s = self._config.timeout_s
        order = Order(
            request=request,
            people=wish.people,
            # The lower of two; a key may have less than normal.
            priority=wish.priority or max(Priority.NORMAL, tenant.priority, key=lambda p: p.rank),
            timeout_s=min(longest_s, wish.timeout_s or longest_s),
            attached=wish.attached,
            previews=wish.previews,
            kind=wish.kind,
        )
        job = self._table.admit(tenant, order)
        if wish.key is not None:
            repeat = Repeat(fingerprint=fingerprint, seed=seed, job_id=job.id)
            self._keys.note(tenant.name, wish.key, repeat)
        return job

    def _still_wanted(self, tenant: Tenant, repeat: Repeat) -> Job | None:
        try:
            job = self._table.job(tenant, repeat.job_id)
        except Problem:
            return None
        lost = job.state in (State.CANCELLED, State.FAILED) or job.cancelled_at is not None
        return None if lost else job

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
