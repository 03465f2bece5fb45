"""From job to picture: the tasks that hand jobs to the engine, and their files to encoders."""

from __future__ import annotations

import asyncio
from functools import partial

from runtime import Result
from server.jobs.engine import EngineClient, Step
from server.jobs.job import Job, Order
from server.jobs.table import JobTable
from server.logs import tell_defect
from server.pictures import Encoder, drawn_of


class Drawing:
    """`run` is a task; there is one for each of the engine's engines. A picture is encoded while
    the next one is drawn."""

    def __init__(self, engine: EngineClient, table: JobTable) -> None:
        self._engine, self._table = engine, table
        self._loop = asyncio.get_running_loop()
        self._encoder = Encoder()
        self._encodings: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Draw one job after the other, until the task is cancelled."""
        while True:
            job = await self._table.next_job()
            order = job.order
            assert order is not None
            started = self._loop.time()
            try:
                result = await self._engine.draw(
                    order.request, cancel=job.cancel, on_step=partial(self._tell_step, job),
                    previews=order.previews,
                )  # fmt: skip
            except Exception as error:
                self._failed(job, error)
                continue
            self._table.job_s += 0.2 * (self._loop.time() - started - self._table.job_s)
            encoding = asyncio.create_task(self._encode(job, order, result))
            self._encodings.add(encoding)
            encoding.add_done_callback(self._encodings.discard)

    def close(self) -> None:
        self._encoder.close()

    def _tell_step(self, job: Job, step: Step) -> None:
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

    async def _encode(self, job: Job, order: Order, result: Result) -> None:
        try:
            drawn = await self._loop.run_in_executor(
                self._encoder.threads, drawn_of, result, order.kind
            )
        except Exception as error:
            self._failed(job, error)
            return
        self._table.end_done(job, drawn)

    def _failed(self, job: Job, error: Exception) -> None:
        self._table.end_failed(job, error)
        if job.problem is not None and job.problem.status_code == 500:
            tell_defect(error, job=job.id)
