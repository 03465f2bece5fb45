"""From job to picture: the tasks that hand jobs to the engine, and their files to encoders."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from runtime import CancelToken, Result
from server.jobs.engine import EngineClient, Step
from server.jobs.job import Job, Order
from server.jobs.table import JobTable
from server.logs import tell, tell_defect
from server.pictures import Drawn, Encoder


class Drawing:
    """`run` is a task; there is one for each of the engine's engines. A picture is encoded while
    the next one is drawn."""

    def __init__(self, engine: EngineClient, table: JobTable) -> None:
        self._engine, self._table = engine, table
        self._loop = asyncio.get_running_loop()
        self._encoder = Encoder()

    async def run(self) -> None:
        """Draw one job after the other, or several at once where the engine says that this pays,
        until the task is cancelled."""
        while True:
            jobs = await self._table.next_jobs(self._companions)
            try:
                await self._draw(jobs)
            except Exception as error:
                await self._apart(jobs, error)

    def close(self) -> None:
        self._encoder.close()

    def _companions(self, orders: Sequence[Order]) -> Sequence[int]:
        return self._engine.companions([order.request for order in orders])

    async def _draw(self, jobs: Sequence[Job]) -> None:
        """Raises what the engine does."""
        orders = [job.order for job in jobs if job.order is not None]

        def encode(at: int, result: Result) -> None:
            """Straight from the engine's thread to an encoder's."""

            def ended(encoding: Future[Drawn]) -> None:
                self._loop.call_soon_threadsafe(self._end, jobs[at], encoding)

            self._encoder.encoding(result, orders[at].kind).add_done_callback(ended)

        started = self._loop.time()
        await self._engine.draw(
            [order.request for order in orders],
            cancel=_Nobody(jobs),
            on_step=partial(self._tell_step, jobs),
            on_result=encode,
            previews=[order.previews for order in orders],
        )
        took_s = (self._loop.time() - started) / len(jobs)
        self._table.job_s += 0.2 * (took_s - self._table.job_s)

    async def _apart(self, jobs: Sequence[Job], error: Exception) -> None:
        """After a call that failed: of several jobs, the one that is the reason meets it again."""
        if len(jobs) > 1:
            tell("drawn_apart", jobs=[job.id for job in jobs], error=type(error).__name__)
        for job in jobs:
            if len(jobs) == 1 or job.cancelled_at is not None:
                self._failed(job, error)
                continue
            try:
                await self._draw([job])
            except Exception as its_own:
                self._failed(job, its_own)

    def _tell_step(self, jobs: Sequence[Job], at: int, step: Step) -> None:
        job = jobs[at]
        if len(jobs) > 1 and job.cancelled_at is not None and not job.ended:
            # The others are drawn on, and this one's share of it is dropped.
            self._table.end_cancelled(job)
        if job.ended:
            return
        job.publish("step", step=step.step + 1, of=step.num_steps, stage=step.stage)
        if step.preview is not None:

            def publish(content: bytes) -> None:
                if not job.ended:
                    job.publish("preview", step=step.step + 1, of=step.num_steps, b64_json=content)

            def encoded(content: bytes) -> None:
                self._loop.call_soon_threadsafe(publish, content)

            self._encoder.preview(step.preview, encoded)

    def _end(self, job: Job, encoding: Future[Drawn]) -> None:
        try:
            drawn = encoding.result()
        except Exception as error:
            self._failed(job, error)
        else:
            self._table.end_done(job, drawn)

    def _failed(self, job: Job, error: Exception) -> None:
        self._table.end_failed(job, error)
        if job.problem is not None and job.problem.status_code == 500:
            tell_defect(error, job=job.id)


class _Nobody:
    """The token of a call: set once none of its jobs is wanted any more."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._tokens: Sequence[CancelToken] = [job.cancel for job in jobs]

    def is_set(self) -> bool:
        return all(each.is_set() for each in self._tokens)
