"""Who is next: by priority, then fairly among tenants, then in the order of admission."""

from __future__ import annotations

from dataclasses import dataclass

from server.jobs.job import Job


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    rank: int
    start: float
    number: int
    job: Job

    @property
    def key(self) -> tuple[int, float, int]:
        return (self.rank, self.start, self.number)


class FairQueue:
    """Start-time fair queuing (Goyal, Vin, Cheng 1996): a tenant's jobs follow one another by what
    they cost in images times steps, so that a tenant who asks for much waits for itself."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._now = 0.0
        self._next_start: dict[str, float] = {}
        self._admitted = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        order, name = job.order, job.tenant.name
        assert order is not None
        start = max(self._now, self._next_start.get(name, 0.0))
        self._next_start[name] = start + order.image_steps
        self._admitted += 1
        self._waiting.append(
            _Waiting(rank=order.priority.rank, start=start, number=self._admitted, job=job)
        )
        self._waiting.sort(key=lambda each: each.key)

    def pop(self) -> Job:
        """The next job."""
        first = self._waiting.pop(0)
        self._now = max(self._now, first.start)
        # Tenants who wait for nothing have no claim left.
        self._next_start = {
            name: start for name, start in self._next_start.items() if start > self._now
        }
        return first.job

    def head(self) -> list[Job]:
        """Those of the first one's priority, in their order."""
        first = self._waiting[0].rank
        return [each.job for each in self._waiting if each.rank == first]

    def remove(self, job: Job) -> bool:
        """Take a job out; whether it was there."""
        left = [each for each in self._waiting if each.job is not job]
        was_there = len(left) < len(self._waiting)
        self._waiting = left
        return was_there

    def position(self, job: Job) -> int:
        """How many are drawn before it."""
        return next(n for n, each in enumerate(self._waiting) if each.job is job)
