"""The table of jobs: what is admitted, cancelled and kept. All of it belongs to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from server.config import ServerConfig
from server.jobs.job import Job, Order, State
from server.jobs.queue import FairQueue
from server.logs import tell
from server.metrics import Metrics
from server.pictures import Drawn
from server.problem import Problem, not_found, problem_of
from server.tenants import Tenant
from server.traces import tell_job

_FIRST_GUESS_S = 5.0

Companions = Callable[[Sequence[Order]], Sequence[int]]


class JobTable:
    """Jobs by id, and the queue that `next_job` takes them from."""

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> None:
        """on_end: called when a job has ended, before anybody who follows it hears of that."""
        self._config, self._metrics, self._on_end = config, metrics, on_end
        self._loop = asyncio.get_running_loop()
        self._queue = FairQueue()
        self._jobs: dict[str, Job] = {}
        # Those that have ended, the oldest first, and the memory that they take.
        self._ended: dict[str, Job] = {}
        self._ended_nbytes = 0
        self._admitted = asyncio.Event()
        # Seconds that a job takes, as the latest ones say.
        self.job_s = _FIRST_GUESS_S
        self.draining = False
        metrics.queue_length.set_function(lambda: len(self._queue))

    def check_room(self) -> None:
        """Raise Problem 503 while no more jobs may wait, or none are admitted."""
        self.check_open()
        if len(self._queue) >= self._config.queue:
            wait_s = self.job_s * len(self._queue)
            raise self.refused(503, "queue_full", f"{len(self._queue)} jobs wait already", wait_s)

    def admit(self, tenant: Tenant, order: Order, job_id: str) -> Job:
        """Take an order in, for which there is room. Raises Problem 503 while none are admitted."""
        self.check_open()
        job = Job(job_id=job_id, tenant=tenant, order=order, now=self._loop.time())
        self._jobs[job.id] = job
        self._queue.add(job)
        job.publish("queued", id=job.id, position=self._queue.position(job))
        late = Problem(504, "timeout", "the job took longer than its timeout_s")
        job.timer = self._loop.call_later(order.timeout_s, self.cancel, job, late)
        self._admitted.set()
        return job

    def check_open(self) -> None:
        """Raise Problem while no jobs are admitted."""
        if self.draining:
            raise Problem(503, "draining", "the server is stopping; ask another", retry_after_s=5)

    async def next_jobs(self, companions: Companions = lambda _: (0,)) -> list[Job]:
        """The job whose turn it is, once there is one, and those that are drawn with it.

        companions: says which, of the orders that wait in the first one's priority, by index.
        """
        while not len(self._queue):
            self._admitted.clear()
            await self._admitted.wait()
        head = self._queue.head()
        beside = companions([each.order for each in head if each.order is not None])
        jobs = [self._queue.pop(), *(head[at] for at in beside if at)]
        for job in jobs:
            self._queue.remove(job)
            job.state, job.started = State.RUNNING, self._loop.time()
            self._metrics.queue_seconds.observe(self._loop.time() - job.admitted)
            job.publish("started", id=job.id)
        self._metrics.jobs_per_call.observe(len(jobs))
        return jobs

    def job(self, tenant: Tenant, job_id: str) -> Job:
        """A tenant's job. Raises Problem 404."""
        job = self._jobs.get(job_id)
        if job is None or job.tenant.name != tenant.name:
            raise not_found("picture")
        return job

    def cancel(self, job: Job, problem: Problem | None = None) -> None:
        """End a job: at once if it waits, after its step if it is drawn."""
        if job.ended or job.cancelled_at is not None:
            return
        job.cancelled_at, job.problem = self._loop.time(), problem
        job.cancel.set()
        if self._queue.remove(job):
            self.end_cancelled(job)

    def forget(self, job: Job) -> None:
        """Cancel a job, or drop what it gave."""
        if job.ended:
            if job.id in self._ended:
                self._drop(job)
        else:
            self.cancel(job)

    def people(self) -> dict[str, set[str]]:
        """Ids of the identities in all jobs that are here, by tenant."""
        found: dict[str, set[str]] = {}
        for job in self._jobs.values():
            if job.people:
                found.setdefault(job.tenant.name, set()).update(job.people)
        return found

    def cancel_all(self, ids: set[str]) -> None:
        """Cancel those of these jobs that are here."""
        for each in ids & self._jobs.keys():
            self.cancel(self._jobs[each])

    def forget_person(self, tenant: str, identity_id: str) -> int:
        """End all that is drawn of a person, and drop all that was; returns how many."""
        jobs = [each for each in self._jobs.values() if each.shows(tenant, identity_id)]
        for job in jobs:
            self.forget(job)
        return len(jobs)

    @contextmanager
    def followed(self, job: Job) -> Iterator[None]:
        """While somebody waits for a job; one that is attached ends with its last follower."""
        job.followers += 1
        try:
            yield
            job.collected = job.ended
        finally:
            job.followers -= 1
            if job.attached and not job.followers:
                self.cancel(job)

    async def drained(self) -> None:
        """Admit nothing more, and wait until all jobs have ended and were fetched."""
        self.draining = True
        self._metrics.ready.set(0)
        while any(not (job.ended and job.collected) for job in self._jobs.values()):
            await asyncio.sleep(0.02)

    async def stopped(self) -> None:
        """End all that is left."""
        self.draining = True
        for job in list(self._jobs.values()):
            self.cancel(job, Problem(503, "stopped", "the server stopped", retry_after_s=5))
        while any(not job.ended for job in self._jobs.values()):
            await asyncio.sleep(0.01)

    def sweep(self) -> None:
        """Drop finished jobs that are old, and the oldest of too many."""
        before, most = self._loop.time() - self._config.keep_s, self._config.keep_mib << 20
        while self._ended:
            job = next(iter(self._ended.values()))
            assert job.ended_at is not None
            if job.ended_at >= before and self._ended_nbytes <= most:
                break
            self._drop(job)

    def _drop(self, job: Job) -> None:
        """Forget a finished job."""
        del self._jobs[job.id], self._ended[job.id]
        self._ended_nbytes -= job.nbytes

    def end_done(self, job: Job, drawn: Drawn) -> None:
        """The files are there; or nobody wants them any more."""
        if job.ended:
            return
        if job.cancelled_at is not None:
            self.end_cancelled(job)
            return
        job.drawn = drawn
        for each in drawn.saliency:
            job.publish("saliency", step=each.step + 1, b64_json=each.content)
        for number, picture in enumerate(drawn.pictures):
            job.publish("picture", number=number, seed=picture.seed, b64_json=picture.content)
        self._end(job, State.DONE, "done", **drawn.facts)

    def end_cancelled(self, job: Job) -> None:
        """The work of a cancelled job has ended."""
        assert job.cancelled_at is not None
        self._metrics.cancel_seconds.observe(self._loop.time() - job.cancelled_at)
        if job.problem is None:
            job.problem = Problem(499, "cancelled", "the job was cancelled")
            self._end(job, State.CANCELLED, "cancelled")
        else:
            self._end(job, State.FAILED, "error", **job.problem.document()["error"])

    def end_failed(self, job: Job, error: Exception) -> None:
        """The work raised an error."""
        if job.ended:
            return
        if job.cancelled_at is not None:
            self.end_cancelled(job)
            return
        job.problem = problem_of(error)
        self._end(job, State.FAILED, "error", **job.problem.document()["error"])

    def _end(self, job: Job, state: State, event: str, **data: object) -> None:
        self._on_end(job)
        job.end(state, self._loop.time(), event, id=job.id, **data)
        self._ended[job.id] = job
        self._ended_nbytes += job.nbytes
        # Whoever follows it reads its end now; an attached job that nobody follows has no reader.
        job.collected = job.attached and not job.followers
        # Who waits for the picture is answered first: in this turn of the loop, at whose end it
        # writes; the job is noted in the next one.
        self._loop.call_soon(self._loop.call_soon, self._note_end, job, self._loop.time())

    def _note_end(self, job: Job, now: float) -> None:
        """The figures, the trace and the line of a job that has ended."""
        kind = "done" if job.problem is None else job.problem.kind
        self._metrics.jobs.labels(kind).inc()
        timings_ms = {} if job.drawn is None else job.drawn.timings_ms
        for stage, ms in timings_ms.items():
            self._metrics.stage_seconds.labels(stage).observe(ms / 1e3)
        took_s = round(now - job.admitted, 3)
        times = {"admitted": job.admitted, "started": job.started}
        tell_job(
            job.trace,
            ago_s={name: now - at for name, at in times.items() if at is not None},
            timings_ms=timings_ms,
            attributes={"job": job.id, "tenant": job.tenant.name},
            failed=None if job.problem is None else kind,
        )
        tell("job", job=job.id, tenant=job.tenant.name, outcome=kind, took_s=took_s,
             timings_ms=timings_ms or None)  # fmt: skip
        self.sweep()

    def refused(self, status: int, reason: str, message: str, wait_s: float) -> Problem:
        """A refusal at admission, which is counted."""
        self._metrics.refused.labels(reason).inc()
        return Problem(status, reason, f"{message}; try again later", retry_after_s=wait_s)
