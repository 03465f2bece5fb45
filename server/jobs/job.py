"""One picture that was asked for: its state, and the events that its followers read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runtime import Request
from server.pictures import Drawn, Format
from server.problem import Problem
from server.tenants import Priority, Tenant
from server.traces import here


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a tenant asks for.

    people: ids of the identities in it. attached: ends when nobody follows it any more. previews:
    whether steps come with a small picture.
    """

    request: Request
    people: frozenset[str] = frozenset()
    priority: Priority = Priority.NORMAL
    timeout_s: float
    attached: bool = True
    previews: bool = False
    kind: Format = "png"

    @property
    def image_steps(self) -> int:
        """What it costs: images times steps."""
        return self.request.num_images * self.request.num_inference_steps


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job. data: JSON, but for bytes, which are told as base64."""

    number: int
    name: str
    data: dict[str, Any]


class Job:
    """An admitted order. All of it belongs to the event loop, but for `cancel`."""

    def __init__(self, *, job_id: str, tenant: Tenant, order: Order, now: float) -> None:
        self.id = job_id
        self.tenant = tenant
        self.order: Order | None = order
        self.people = order.people
        self.kind = order.kind
        self.attached = order.attached
        self.admitted = now
        self.started: float | None = None
        self.trace = here()
        self.timer: asyncio.TimerHandle | None = None
        self.state = State.QUEUED
        self.cancel = threading.Event()
        self.cancelled_at: float | None = None
        self.ended_at: float | None = None
        self.drawn: Drawn | None = None
        self.problem: Problem | None = None
        self.collected = False
        self.followers = 0
        self.log: list[Event] = []
        self._nbytes = 0
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.state not in (State.QUEUED, State.RUNNING)

    @property
    def nbytes(self) -> int:
        """Memory that its files take, about."""
        return 4096 + self._nbytes

    def shows(self, tenant: str, identity_id: str) -> bool:
        """Whether it is of a tenant's person."""
        return self.tenant.name == tenant and identity_id in self.people

    def publish(self, name: str, **data: Any) -> None:
        """Tell all followers."""
        self.log.append(Event(number=len(self.log) + 1, name=name, data=data))
        self._nbytes += sum(len(each) for each in data.values() if isinstance(each, bytes))
        self.wake()

    def wake(self) -> None:
        """Have all who wait for a change look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, state: State, now: float, name: str, **data: Any) -> None:
        """The last event; what it was drawn from is dropped."""
        self.state, self.ended_at, self.order = state, now, None
        if self.timer is not None:
            self.timer.cancel()
        self.publish(name, **data)

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """What happened since an event's number, until the end."""
        while True:
            while after < len(self.log):
                after += 1
                yield self.log[after - 1]
            if self.ended:
                return
            await self.changed()

    async def changed(self) -> None:
        """Wait for the next event, or for `wake`."""
        await self._changed.wait()
