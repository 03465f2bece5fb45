"""Traces: a job's spans follow one another, belong to the caller's trace and tell no words."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.doubles.pacing_engine import PacingEngine
from tests.server.serving import PROMPT, body, served, until

CALLER = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Takes the spans of this process, which has one provider for all its life."""
    found = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(found))
    return found


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


def named(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Ours: a web framework may write spans of its requests around them."""
    found = spans.get_finished_spans()
    scopes = ((each, each.instrumentation_scope) for each in found)
    return {
        each.name: each
        for each, scope in scopes
        if scope is not None and scope.name == "face-diffuser.server"
    }


def started(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def ended(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


def test_a_job_is_a_span_of_the_callers_trace_with_its_parts_in_turn(
    spans: InMemorySpanExporter,
) -> None:
    with served(PacingEngine(step_s=0.02)) as server:
        answer = server.draw(body(server.identity()), headers=HEADERS)
        assert answer.status_code == 200
    found = named(spans)
    assert set(found) >= {"job", "queue", "encode"}
    job = found["job"]
    assert job.context is not None
    assert f"{job.context.trace_id:032x}" == CALLER
    assert job.parent is not None
    for name, span in found.items():
        if name != "job":
            assert span.parent is not None
            assert span.parent.span_id == job.context.span_id
            assert started(job) <= started(span) <= ended(span)
    assert started(found["queue"]) == started(job)
    # Three steps of 20 ms lie between the queue and the files.
    assert ended(job) - ended(found["queue"]) >= 55e6
    assert ended(found["encode"]) == ended(job)
    assert job.status.is_ok or job.status.status_code is trace.StatusCode.UNSET
    assert job.attributes is not None
    assert job.attributes["outcome"] == "done"
    told = " ".join(each.to_json() for each in spans.get_finished_spans())
    assert PROMPT not in told


def test_a_failed_job_says_how_and_one_that_never_ran_has_waited_alone(
    spans: InMemorySpanExporter,
) -> None:
    engine = PacingEngine(step_s=0.05)
    with served(engine) as server:
        him = server.identity()
        first = server.draw(body(him, wait=False, num_inference_steps=200)).json()["id"]
        second = server.draw(body(him, wait=False)).json()["id"]
        server.client.delete(f"/v1/pictures/{second}")
        until(lambda: "job" in named(spans))
        waited = named(spans)
        assert set(waited) == {"job", "queue"}
        assert ended(waited["queue"]) == ended(waited["job"])
        spans.clear()
        server.client.delete(f"/v1/pictures/{first}")
        until(lambda: "job" in named(spans))
        job = named(spans)["job"]
    assert job.status.status_code is trace.StatusCode.ERROR
    assert job.attributes is not None
    assert job.attributes["outcome"] == "cancelled"
