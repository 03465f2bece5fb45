"""What a server's routes share, and how it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from server.config import ServerConfig
from server.identities.people import Kept, People
from server.jobs.admission import Admission
from server.jobs.drawing import Drawing
from server.jobs.engine import EngineClient
from server.jobs.table import JobTable
from server.logs import tell
from server.metrics import Metrics
from server.problem import Problem
from server.store.database import StoreError
from server.tenants import Authenticate, Tenant

# How soon one server does what another one of the same store was told.
_SWEEP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Services:
    """One server's parts."""

    config: ServerConfig
    engine: EngineClient
    authenticate: Authenticate
    metrics: Metrics
    table: JobTable
    people: People
    admission: Admission


@asynccontextmanager
async def opened_services(
    engine: EngineClient, kept: Kept, config: ServerConfig, authenticate: Authenticate
) -> AsyncIterator[Services]:
    """A server's parts at work; at the end all jobs have ended and the engine is closed."""
    metrics = Metrics()
    store = kept.store
    table = JobTable(config, metrics, lambda job: store.later(store.admissions.end, job.id))
    people = People(kept, engine, table, config, metrics)
    admission = Admission(engine, table, kept, config)
    drawing = Drawing(engine, table)
    tasks = [asyncio.create_task(drawing.run()) for _ in range(engine.engines)]
    tasks.append(asyncio.create_task(_sweep(table, people, admission)))
    metrics.ready.set(1)
    try:
        yield Services(
            config=config, engine=engine, authenticate=authenticate, metrics=metrics, table=table,
            people=people, admission=admission,
        )  # fmt: skip
    finally:
        await table.stopped()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        drawing.close()
        store.close()
        await engine.close()


async def _sweep(table: JobTable, people: People, admission: Admission) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        table.sweep()
        try:
            await people.sweep()
            await admission.sweep()
        except StoreError as error:
            # It is tried again, and whoever asks meanwhile is told.
            tell("store_failed", error=error.reason)


# Coroutines, because FastAPI calls plain functions in a thread, which takes longer than they do.


async def services_of(request: Request) -> Services:
    """The parts of the server that a request came to."""
    services: Services = request.app.state.services
    return services


async def tenant_of(request: Request) -> Tenant:
    """Whose request it is. Raises Problem 401."""
    hook: Any = (await services_of(request)).authenticate
    if iscoroutinefunction(hook):
        answer = hook(request)
    else:
        answer = await run_in_threadpool(hook, request)
    # An object whose call is a coroutine is no coroutine function, and answers with one.
    tenant: Tenant | None = await answer if isawaitable(answer) else answer
    if tenant is None:
        raise Problem(401, "unauthorized", "send a known key as `Authorization: Bearer KEY`")
    return tenant


Shared = Annotated[Services, Depends(services_of)]
Asking = Annotated[Tenant, Depends(tenant_of)]
