"""What /metrics tells, in Prometheus's words; of no tenant and no person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def histogram(name: str, about: str, *labels: str) -> Histogram:
            return Histogram(name, about, labels, registry=registry, buckets=_SECONDS)

        self.requests = Counter(
            "facediffuser_requests", "Answers by route and status", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.jobs = Counter(
            "facediffuser_jobs", "Jobs by how they ended", ["outcome"], registry=registry
        )
        self.refused = Counter(
            "facediffuser_refused", "Jobs refused at admission, by why", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.queue_length = Gauge("facediffuser_queue_length", "Jobs waiting", registry=registry)
        self.identities = Gauge("facediffuser_identities", "Identities kept", registry=registry)
        self.ready = Gauge("facediffuser_ready", "1 while jobs are admitted", registry=registry)
        self.queue_seconds = histogram("facediffuser_queue_seconds", "Wait of a job for its turn")
        self.jobs_per_call = Histogram(
            "facediffuser_jobs_per_call", "Jobs that were drawn in one call", registry=registry,
            buckets=(1, 2, 3, 4, 6, 8, 12, 16),
        )  # fmt: skip
        self.stage_seconds = histogram(
            "facediffuser_stage_seconds", "Time of a job's stages", "stage"
        )
        self.cancel_seconds = histogram(
            "facediffuser_cancel_seconds", "From a cancel to the end of the work"
        )

    def text(self) -> bytes:
        """All of it, as Prometheus scrapes it."""
        return generate_latest(self._registry)
