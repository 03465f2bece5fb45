"""The server under load: HTTP's cost, throughput, goodput, cancelling, memory, and losses.

    python -m benchmarks serving [--what WHAT ...] [--engines N] [--bundle BUNDLE] [--threads N]

The server runs in a process of its own, with --engines as a driver of a Ray cluster of this
machine; first its picture must be the embedded one's, pixel for pixel. What is compared with the
embedded loop is taken in turns. kill, stop, update and scale-down take engines and servers away
while clients ask: no admitted request may be lost, and each picture must be its seed's.
"""

from __future__ import annotations

import base64
import io
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from PIL import Image

from benchmarks.harness.backends import gpu_of
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.measure import Measure
from benchmarks.harness.options import ProviderOptions, flag
from benchmarks.harness.record import ReferenceMismatchError, header_of, table
from benchmarks.harness.workload import QUICK_STEPS, SEED, STEPS, Workload
from benchmarks.serving.asking import digest_of
from benchmarks.serving.client import Server, started_server
from benchmarks.serving.cluster import Cluster, started_cluster
from benchmarks.serving.losses import kills, scale_downs, stops, updates
from benchmarks.serving.record import (
    CancelRow,
    LoadRow,
    LossRow,
    MemoryRow,
    OverheadRow,
    ServingFacts,
    ServingRecord,
)
from benchmarks.serving.trials import cancels, load, memory, overhead
from engines.bundle.folder import Bundle
from engines.bundle.records import Count, RecordError, document_of
from runtime import FaceDiffuser, OutputType, Request, Result

# Of what one client draws alone: at ease, near saturation, and beyond it.
OFFERED = (0.5, 0.8, 1.5)
_QUEUE = 8
# Engines that have nothing to do are taken away after so long, where that is measured.
_IDLE_S = 2

What = Literal["overhead", "load", "cancel", "memory", "kill", "stop", "update", "scale-down"]
_ON_A_CLUSTER = ("kill", "scale-down")
Row = OverheadRow | LoadRow | CancelRow | MemoryRow | LossRow


@dataclass(frozen=True, kw_only=True)
class ServingOptions(ProviderOptions):
    what: tuple[What, ...] = field(
        default=("overhead", "load", "cancel", "memory"),
        metadata=flag("what to measure (default: overhead load cancel memory)"),
    )
    engines: Count | None = field(
        default=None,
        metadata=flag("on a Ray cluster of this machine (default: in the server's process)"),
    )
    steps: Count = field(default=STEPS, metadata=flag("of each picture", quick=QUICK_STEPS))
    size_px: Count | None = field(
        default=None, metadata=flag("height and width (default: the model's own)", quick=64)
    )
    rounds: Count = field(default=10, metadata=flag("of 5 pictures beside embedded ones", quick=2))
    requests: Count = field(default=200, metadata=flag("at each offered load", quick=20))
    cancels: Count = field(default=100, metadata=flag("by DELETE, and by hang-up", quick=5))
    pictures: Count = field(default=1000, metadata=flag("small ones, for memory", quick=50))
    kills: Count = field(default=50, metadata=flag("of engines' processes", quick=2))
    stops: Count = field(default=10, metadata=flag("of servers, by SIGTERM", quick=1))
    updates: Count = field(default=5, metadata=flag("of one server by another", quick=1))
    scale_downs: Count = field(default=5, metadata=flag("of the engines to one", quick=1))

    def __post_init__(self) -> None:
        alone = [each for each in self.what if each in _ON_A_CLUSTER]
        if alone and (self.engines or 0) < 2:
            raise RecordError(f"{alone[0]} is measured on a cluster; add --engines 2")


def measured_serving(options: ServingOptions) -> ServingRecord:
    """Raises ReferenceMismatchError, ServerFailedError and ProviderUnavailableError."""
    bundle = Bundle.open(options.bundle)
    facts = vars(bundle_facts(bundle, options.threads))
    threads = facts["threads"]
    with ExitStack() as stack:
        embedded = stack.enter_context(
            FaceDiffuser.open(bundle.path, provider=options.provider, threads=threads)
        )
        folder = Path(stack.enter_context(TemporaryDirectory()))
        cluster = None if options.engines is None else stack.enter_context(started_cluster())
        place = _Place(options=options, threads=threads, folder=folder, cluster=cluster)
        trials = _Trials(place, embedded, stack)
        rows = [row for what in dict.fromkeys(options.what) for row in trials.measured(what)]
        ready_s = trials.ready_s
    size_px = options.size_px or facts["native_px"]
    header = header_of("serving", options, gpu=gpu_of(options.provider), seeds=[SEED])
    told = ServingFacts(
        **facts, provider=options.provider, steps=options.steps, size_px=size_px, ready_s=ready_s,
        engines=options.engines,
    )  # fmt: skip
    return ServingRecord(header=header, facts=told, rows=tuple(rows))


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What each server of a run is started with. folder: of the store that they share."""

    options: ServingOptions
    threads: int
    folder: Path
    cluster: Cluster | None

    def server(self, *words: object) -> AbstractContextManager[Server]:
        """Limits are out of the way, and what has ended is soon forgotten."""
        on: list[object] = []
        if self.cluster is not None:
            on = ["--ray", self.cluster.address, "--engines", self.options.engines]
        return started_server(
            self.options.bundle, "--queue", _QUEUE, "--tenant-jobs", 1000, "--tenant-pictures",
            10**6, "--tenant-steps", 10**9, "--threads", self.threads, "--provider",
            self.options.provider, "--keep-s", 10, *on, *words,
            environment=None if self.cluster is None else self.cluster.environment,
        )  # fmt: skip

    def sharing_server(self) -> AbstractContextManager[Server]:
        """One that has its people and limits in common with the others."""
        key = self.folder / "identity.key"
        if not key.exists():
            key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
            key.chmod(0o600)
        return self.server("--store", self.folder / "store.sqlite", "--identity-key", key)


class _Trials:
    """The trials of a run by name. Those that take nothing away share a server, which is started
    for the first of them; the others have servers of their own."""

    def __init__(self, place: _Place, embedded: FaceDiffuser, stack: ExitStack) -> None:
        self._place, self._options, self._embedded = place, place.options, embedded
        self._stack = stack
        self._request = _request(place.options)
        self._digests: dict[int, str] = {}
        self.ready_s = 0.0

    def measured(self, what: What) -> list[Row]:
        options, place = self._options, self._place
        match what:
            case "stop":
                return [stops(place.server, self._body, options.stops, self._expected)]
            case "update":
                return [updates(place.sharing_server, self._body, options.updates, self._expected)]
            case "kill":
                return [self._on_a_cluster(kills, options.kills)]
            case "scale-down":
                words = ("--engines-least", 1, "--engines-idle-s", _IDLE_S)
                return [self._on_a_cluster(scale_downs, options.scale_downs, *words)]
        return self._under_load(what, *self._shared)

    @cached_property
    def _shared(self) -> tuple[Server, dict[str, Any]]:
        """A server whose picture is the embedded one's, and what to ask it for."""
        server = self._stack.enter_context(self._place.server())
        return server, self._checked_body(server)

    def _on_a_cluster(self, trial: Callable[..., LossRow], count: int, *words: object) -> LossRow:
        cluster = self._place.cluster
        assert cluster is not None
        with self._place.server(*words) as server:
            return trial(
                server, self._checked_body(server), count, engines=cluster.engines,
                of=self._options.engines, expected=self._expected,
            )  # fmt: skip

    def _checked_body(self, server: Server) -> dict[str, Any]:
        body = self._body(server)
        _check_equal(server, body, self._embedded, self._request)
        return body

    def _under_load(self, what: What, server: Server, body: dict[str, Any]) -> list[Row]:
        options = self._options

        def draw() -> Result:
            return self._embedded.generate(self._request)

        if what == "overhead":
            return [overhead(server, body, options.rounds, draw)]
        if what == "cancel":
            return [cancels(server, body, options.cancels, by=by) for by in ("delete", "hang-up")]
        if what == "memory":
            return [memory(server, body, options.pictures)]
        started = time.perf_counter()
        draw()
        alone_s = time.perf_counter() - started
        return [
            load(server, body, offered=each, alone_s=alone_s, requests=options.requests, seed=SEED)
            for each in OFFERED
        ]

    def _body(self, server: Server) -> dict[str, Any]:
        self.ready_s = server.ready_s
        return _body(server, self._request)

    def _expected(self, seed: int) -> str:
        if seed not in self._digests:
            drawn = self._embedded.generate(replace(self._request, seed=seed))
            self._digests[seed] = digest_of(drawn.images[0])
        return self._digests[seed]


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
