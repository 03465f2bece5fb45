"""Who is drawn next."""

from __future__ import annotations

import asyncio

from runtime import Identity, Request
from server.jobs.job import Job, Order
from server.jobs.queue import FairQueue
from server.tenants import Priority, Tenant
from tests.doubles.pacing_engine import PacingEngine

WHO: Identity = asyncio.run(PacingEngine().encode(b"him"))


def job(name: str, tenant: str, *, steps: int = 10, priority: Priority = Priority.NORMAL) -> Job:
    request = Request(prompt="a man <|image|>", references=[WHO], num_inference_steps=steps)
    order = Order(request=request, priority=priority, timeout_s=60)
    return Job(job_id=name, tenant=Tenant(name=tenant), order=order, now=0)


def order_of(jobs: list[Job]) -> list[str]:
    queue = FairQueue()
    for each in jobs:
        queue.add(each)
    told = sorted(jobs, key=queue.position)
    popped = [queue.pop() for _ in jobs]
    assert told == popped
    return [each.id for each in popped]


def test_one_tenants_jobs_are_drawn_in_their_order() -> None:
    assert order_of([job(name, "a") for name in "123"]) == ["1", "2", "3"]


def test_a_tenant_of_many_jobs_waits_for_itself() -> None:
    jobs = [*(job(f"a{n}", "a") for n in range(4)), job("b0", "b"), job("b1", "b")]
    assert order_of(jobs) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_tenants_share_by_what_they_ask_for_not_by_jobs() -> None:
    jobs = [
        *(job(f"a{n}", "a", steps=30) for n in range(2)),
        *(job(f"b{n}", "b") for n in range(4)),
    ]
    assert order_of(jobs) == ["a0", "b0", "b1", "b2", "a1", "b3"]


def test_a_tenant_that_comes_late_is_owed_nothing_for_the_time_before() -> None:
    queue = FairQueue()
    for n in range(6):
        queue.add(job(f"a{n}", "a"))
    for _ in range(4):
        queue.pop()
    for n in range(3):
        queue.add(job(f"b{n}", "b"))
    assert [queue.pop().id for _ in range(5)] == ["b0", "a4", "b1", "a5", "b2"]


def test_a_higher_priority_is_drawn_first() -> None:
    jobs = [job("low", "a", priority=Priority.LOW), job("normal", "a"),
            job("high", "b", priority=Priority.HIGH)]  # fmt: skip
    assert order_of(jobs) == ["high", "normal", "low"]
