"""The server under load: HTTP's cost, throughput, goodput, cancelling, memory.

    python -m benchmarks serving [--quick] [--bundle BUNDLE] [--threads N] [--steps N]

The server runs in a process of its own; first its picture must be the embedded one's, pixel for
pixel. What is compared with the embedded loop is taken in turns.
"""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness.backends import gpu_of
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import ProviderOptions, flag
from benchmarks.harness.record import ReferenceMismatchError, header_of, table
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from benchmarks.serving.client import Server, started_server
from benchmarks.serving.record import (
    CancelRow,
    LoadRow,
    MemoryRow,
    OverheadRow,
    ServingFacts,
    ServingRecord,
)
from benchmarks.serving.trials import cancels, load, memory, overhead
from engines.bundle.folder import Bundle
from engines.bundle.records import Count, document_of
from runtime import FaceDiffuser, OutputType, Request

# Of what one client draws alone: at ease, near saturation, and beyond it.
OFFERED = (0.5, 0.8, 1.5)
_QUEUE = 8


@dataclass(frozen=True, kw_only=True)
class ServingOptions(ProviderOptions):
    steps: Count = field(default=STEPS, metadata=flag("of each picture", quick=QUICK_STEPS))
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)", quick=64)
    )
    rounds: Count = field(default=10, metadata=flag("of 5 pictures beside embedded ones", quick=2))
    requests: Count = field(default=200, metadata=flag("at each offered load", quick=20))
    cancels: Count = field(default=100, metadata=flag("by DELETE, and by hang-up", quick=5))
    pictures: Count = field(default=1000, metadata=flag("small ones, for memory", quick=50))


def measured_serving(options: ServingOptions) -> ServingRecord:
    """Raises ReferenceMismatchError and ServerFailedError."""
    bundle = Bundle.open(options.bundle)
    facts = vars(bundle_facts(bundle, options.threads))
    threads = facts["threads"]
    words = [
        "--queue", _QUEUE, "--tenant-jobs", 1000, "--tenant-pictures", 10**6,
        "--tenant-steps", 10**9, "--threads", threads, "--provider", options.provider,
    ]  # fmt: skip
    with (
        FaceDiffuser.open(bundle.path, provider=options.provider, threads=threads) as embedded,
        started_server(bundle.path, *words) as server,
    ):
        request = _request(options)
        body = _body(server, request)
        _check_equal(server, body, embedded, request)
        started = time.perf_counter()
        embedded.generate(request)
        alone_s = time.perf_counter() - started
        rows: list[OverheadRow | LoadRow | CancelRow | MemoryRow] = [
            overhead(server, body, options.rounds, lambda: embedded.generate(request)),
            *(
                load(server, body, offered=each, alone_s=alone_s, requests=options.requests,
                     seed=SEED)
                for each in OFFERED
            ),
            *(cancels(server, body, options.cancels, by=by) for by in ("delete", "hang-up")),
            memory(server, body, options.pictures),
        ]  # fmt: skip
    size_px = options.size_px or facts["native_px"]
    header = header_of("serving", options, gpu=gpu_of(options.provider), seeds=[SEED])
    told = ServingFacts(
        **facts, provider=options.provider, steps=options.steps, size_px=size_px,
        ready_s=server.ready_s,
    )  # fmt: skip
    return ServingRecord(header=header, facts=told, rows=tuple(rows))


def _request(options: ServingOptions) -> Request:
    workload = Workload(steps=options.steps, size_px=options.size_px)
    return workload.request(output_type=OutputType.PIL)


def _body(server: Server, request: Request) -> dict[str, Any]:
    """The same request for the server, its people uploaded."""
    with server.client() as client:
        people = [client.identity(each) for each in request.references]  # type: ignore[arg-type]
    names = ("prompt", "num_inference_steps", "guidance_scale", "seed", "height", "width")
    return {**{name: getattr(request, name) for name in names}, "identities": people}


def _check_equal(
    server: Server, body: dict[str, Any], embedded: FaceDiffuser, request: Request
) -> None:
    """Raise ReferenceMismatchError unless the server draws the embedded picture; one of another
    seed must differ, else this would show nothing."""
    wanted = np.asarray(embedded.generate(request).images[0])
    for seed, equal in ((request.seed, True), (SEED + 1, False)):
        with server.client() as client:
            answer = client.ask("POST", "/v1/pictures", {**body, "seed": seed}).json()
        content = base64.b64decode(answer["images"][0]["b64_json"])
        with Image.open(io.BytesIO(content)) as image:
            found = np.asarray(image)
        if np.array_equal(found, wanted) is not equal:
            words = "is not the embedded picture" if equal else "does not depend on its seed"
            raise ReferenceMismatchError(f"the server's picture of seed {seed} {words}")


def serving_text(record: ServingRecord) -> str:
    """A table for each kind of row."""
    rows = [document_of(row) for row in record.rows]
    kinds = dict.fromkeys(row["kind"] for row in rows)
    tables = [table([row for row in rows if row["kind"] == kind]) for kind in kinds]
    return "\n\n".join([f"ready {record.facts.ready_s:.1f} s after its start", *tables])


MEASURE = Measure(options=ServingOptions, measure=measured_serving, text=serving_text)
