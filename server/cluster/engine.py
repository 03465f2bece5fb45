"""The engines of a Ray cluster, behind the Protocol that jobs know.

The server's process admits, queues and keeps what it always does, and is a driver of the cluster:
jobs, identities and limits stay in one place, whatever becomes of a replica. A replica that dies in
the middle of a picture costs its time: the same request, whose seed was drawn at admission, is
drawn again by another, once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException

from engines.tune.settings import CallTime
from runtime import CancelledError, CancelToken, Identity, Request, Result
from runtime.inputs.check import RequestCheck
from runtime.inputs.together import companions
from server.cluster.replica import Raised, Replica, ReplicaFacts, Sent
from server.config import ServerConfig
from server.jobs.engine import EngineLostError, OnStep, PhotoDecoder
from server.logs import tell

_APPLICATION = "face-diffuser-engines"
# How soon a job's cancelling is noticed between two steps.
_POLL_S = 0.02
# A replica opens its bundle, and at full size on a CPU measures it first.
_OPEN_S = 900.0

Answer = TypeVar("Answer")


def opened_on_ray(bundle: Path, config: ServerConfig) -> tuple[RayEngine, str]:
    """Start the engines, and wait for the first; also says which provider computes.

    The bundle must lie under the same path on every machine of the cluster, and on this one.
    """
    _connect(config)
    cluster: Any = ray
    options = {
        "provider": config.provider, "precision": config.precision, "threads": config.threads,
        "low_memory": config.low_memory, "quantization": config.quantization,
    }  # fmt: skip
    deployment: Any = serve.deployment(
        name="engine",
        num_replicas=config.engines,
        # One picture at a time: whoever comes second waits in the server's queue, which is fair.
        max_ongoing_requests=1,
        ray_actor_options=resources(config, cluster.cluster_resources()),
        graceful_shutdown_timeout_s=config.drain_s,
    )(Replica)
    # Engines are asked through their handle. Ray's own HTTP proxy would take our port, and a busy
    # machine that starts it too late would start nothing.
    serve.start(proxy_location="Disabled")
    handle = serve.run(
        deployment.bind(str(bundle.resolve()), options), name=_APPLICATION, route_prefix=None
    )
    facts: ReplicaFacts = handle.facts.remote().result(timeout_s=_OPEN_S)
    engine = RayEngine(handle, RequestCheck.open(bundle), config, facts.call_time)
    return engine, facts.provider


def resources(config: ServerConfig, cluster: Mapping[str, float]) -> dict[str, float]:
    """What Ray sets aside for an engine. cluster: all that it has, as Ray tells it."""
    gpus = config.engine_gpus
    if gpus is None:
        gpus = 1.0 if cluster.get("GPU", 0.0) >= 1.0 else 0.0
    return {"num_cpus": float(config.threads or 1), "num_gpus": gpus}


def _connect(config: ServerConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The server's log is lines of JSON; Ray's own words go to the files of its session.
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if config.ray != "local":
        ray.init(address=config.ray, log_to_driver=False, logging_level=logging.ERROR)
        return
    # Replicas import what this process does, and nothing listens on other machines' behalf.
    paths = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )


class RayEngine:
    """Replicas of a deployment, each of which makes one call at a time."""

    def __init__(
        self,
        handle: Any,
        check: RequestCheck,
        config: ServerConfig,
        call_time: CallTime | None = None,
    ) -> None:
        """handle: the deployment's, as `serve.run` gives it. call_time: of a replica's engine."""
        self._handle = handle
        self._check = check
        self._call_time = call_time
        self._engines = config.engines
        self._photos = PhotoDecoder(config.max_photo_pixels)

    @property
    def engines(self) -> int:
        return self._engines

    @property
    def native_px(self) -> int:
        return self._check.native_px

    def check(self, request: Request) -> None:
        self._check.check(request)

    async def check_photo(self, photo: bytes) -> None:
        await self._photos.decoded(photo)

    async def encode(self, photo: bytes) -> Identity:
        pixels = await self._photos.decoded(photo)

        async def encoded() -> Identity:
            found: Identity | Raised = await self._handle.encode.remote(pixels)
            if isinstance(found, Raised):
                raise found.error
            return found

        return await _again_if_lost(encoded)

    def companions(self, requests: Sequence[Request]) -> Sequence[int]:
        return companions(requests, self._call_time, self.native_px)

    async def draw(
        self,
        requests: Sequence[Request],
        *,
        cancel: CancelToken,
        on_step: OnStep,
        previews: Sequence[bool],
    ) -> list[Result]:
        async def drawn() -> list[Result]:
            stream = self._handle.options(stream=True).draw.remote(requests, previews=previews)
            try:
                async for each in _until_cancelled(stream, cancel):
                    if isinstance(each, Raised):
                        raise each.error
                    if isinstance(each, list):
                        return each
                    on_step(*each)
            finally:
                stream.cancel()
            raise EngineLostError("an engine ended its answer without a picture")

        return await _again_if_lost(drawn)

    async def close(self) -> None:
        self._photos.close()
        await asyncio.get_running_loop().run_in_executor(None, _stop)


async def _again_if_lost(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """What the work gives, tried twice where an engine is lost. Raises EngineLostError."""
    for last in (False, True):
        try:
            return await work()
        except (RayActorError, RayServeException, EngineLostError) as error:
            tell("engine_lost", kind=type(error).__name__, again=not last)
            if last:
                raise EngineLostError(
                    "the engine that drew this ended, and so did the one that tried again"
                ) from error
    raise AssertionError


async def _until_cancelled(stream: Any, cancel: CancelToken) -> AsyncIterator[Sent]:
    """What a replica sends, as it comes. Raises CancelledError."""
    coming = aiter(stream)
    while True:
        each = asyncio.ensure_future(anext(coming))
        while not (await asyncio.wait({each}, timeout=_POLL_S))[0]:
            if cancel.is_set():
                each.cancel()
                raise CancelledError("cancelled while an engine drew")
        try:
            yield each.result()
        except StopAsyncIteration:
            return


def _stop() -> None:
    serve.delete(_APPLICATION)
    ray.shutdown()
