"""Traces: a span for each job, with its parts below it, from the times that are measured anyway.

Whoever runs the server says where they go, by OpenTelemetry's own means (`opentelemetry-instrument
python -m server bundle`, or an SDK that is set up before); without one they cost nothing. Spans
carry ids, numbers and outcomes; of prompts, photos and people they know nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context

from runtime.pictures.files import toolkit_version

_TRACER = trace.get_tracer("face-diffuser.server", toolkit_version())
# Of a result's timings, those that follow one another from the start of the drawing.
_STAGES = ("text", "references", "scene", "fusion", "subject", "decode")


@contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Within, the trace is the caller's (W3C's `traceparent`), where the headers name one."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def here() -> Context:
    """The trace that a request belongs to, for a job that outlives it."""
    return context.get_current()


def tell_job(
    parent: Context,
    *,
    ago_s: Mapping[str, float],
    timings_ms: Mapping[str, float],
    attributes: Mapping[str, str | int],
    failed: str | None,
) -> None:
    """Write the spans of a job that has just ended.

    ago_s: seconds since it was "admitted" and, if it was, "started". timings_ms: of its result.
    failed: the kind of its problem, None for a picture.
    """
    now = time.time_ns()
    at = {name: now - int(seconds * 1e9) for name, seconds in ago_s.items()}
    job = _TRACER.start_span(
        "job",
        parent,
        start_time=at["admitted"],
        attributes={**attributes, "outcome": failed or "done"},
    )
    if failed is not None:
        job.set_status(trace.StatusCode.ERROR, failed)
    within = trace.set_span_in_context(job, parent)

    def part(name: str, start: int, end: int) -> int:
        _TRACER.start_span(name, within, start_time=start).end(end)
        return end

    drawn_at = part("queue", at["admitted"], at.get("started", now))
    for stage in _STAGES:
        if stage in timings_ms:
            drawn_at = part(stage, drawn_at, drawn_at + int(timings_ms[stage] * 1e6))
    if "encode" in timings_ms:
        part("encode", now - int(timings_ms["encode"] * 1e6), now)
    job.end(now)
