"""A server's engines as an application of Ray Serve: named, started, taken down.

Each server has an application of its own. Two servers of one cluster, as there are while a new one
takes over, share nothing but the cluster: neither stops or changes the engines of the other.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve

from runtime.inputs.check import RequestCheck
from server.cluster.engine import RayEngine
from server.cluster.replica import Replica, ReplicaFacts
from server.config import ConfigError, ServerConfig
from server.logs import tell

_PREFIX = _NAMESPACE = "face-diffuser"
# A replica opens its bundle, and at full size on a CPU measures it first.
_OPEN_S = 900.0
# More pictures than engines for so long, and Ray starts another.
_BUSY_S = 2.0
_LOOK_BACK_S = 5.0


class Owner:
    """An actor that lives as long as the server which started it: it says that an application's
    server is there."""


def opened_on_ray(bundle: Path, config: ServerConfig) -> tuple[RayEngine, str]:
    """Start the engines, and wait for the first; also says which provider computes.

    The bundle must lie under the same path on every machine of the cluster, and on this one.
    """
    _connect(config)
    cluster: Any = ray
    check = RequestCheck.open(bundle)
    # Engines are asked through their handle. Ray's own HTTP proxy would take our port, and a busy
    # machine that starts it too late would start nothing.
    serve.start(proxy_location="Disabled")
    name = f"{_PREFIX}-{secrets.token_hex(4)}"
    if config.ray != "local":
        _take_down_orphans()
        # Kept by this process: the actor ends with the last handle of it.
        owner = cluster.remote(num_cpus=0)(Owner).options(name=name, namespace=_NAMESPACE).remote()
    else:
        owner = None
    deployment: Any = serve.deployment(
        name="engine",
        # One picture at a time: whoever comes second waits in the server's queue, which is fair.
        max_ongoing_requests=1,
        ray_actor_options=resources(config, cluster.cluster_resources()),
        # A replica that is taken away ends its picture first.
        graceful_shutdown_timeout_s=config.drain_s,
        **_replicas(config),
    )(Replica)
    options = {
        "provider": config.provider, "precision": config.precision, "threads": config.threads,
        "low_memory": config.low_memory, "quantization": config.quantization,
    }  # fmt: skip
    handle: Any = serve.run(
        deployment.bind(str(bundle.resolve()), options), name=name, route_prefix=None
    )
    facts: ReplicaFacts = handle.facts.remote().result(timeout_s=_OPEN_S)

    def stop() -> None:
        # Else its thread, which reports how busy the engines are, would connect to Ray once more.
        handle.shutdown()
        serve.delete(name)
        if owner is not None:
            cluster.kill(owner)
        ray.shutdown()

    return RayEngine(handle, check, config, facts.call_time, stop), facts.provider


def resources(config: ServerConfig, cluster: Mapping[str, float]) -> dict[str, float]:
    """What Ray sets aside for an engine. cluster: all that it has, as Ray tells it."""
    gpus = config.engine_gpus
    if gpus is None:
        gpus = 1.0 if cluster.get("GPU", 0.0) >= 1.0 else 0.0
    return {"num_cpus": float(config.threads or 1), "num_gpus": gpus}


def _replicas(config: ServerConfig) -> dict[str, Any]:
    """How many engines there are, in Ray's words."""
    least = config.engines_least or config.engines
    if least == config.engines:
        return {"num_replicas": config.engines}
    return {
        "autoscaling_config": {
            "min_replicas": least, "initial_replicas": least, "max_replicas": config.engines,
            "target_ongoing_requests": 1, "upscale_delay_s": _BUSY_S,
            "downscale_delay_s": config.engines_idle_s, "look_back_period_s": _LOOK_BACK_S,
            "metrics_interval_s": 1.0,
        }
    }  # fmt: skip


def _take_down_orphans() -> None:
    """Take down the engines of servers that ended without doing so themselves."""
    cluster: Any = ray
    for name in list(serve.status().applications):
        if not name.startswith(f"{_PREFIX}-"):
            continue
        try:
            cluster.get_actor(name, namespace=_NAMESPACE)
        except ValueError:
            tell("orphans_taken_down", application=name)
            # Another server may do the same at this moment.
            with suppress(KeyError, ValueError):
                serve.delete(name, _blocking=False)


def _connect(config: ServerConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The server's log is lines of JSON; Ray's own words go to the files of its session.
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if config.ray != "local":
        try:
            ray.init(address=config.ray, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ConfigError(
                f"no Ray cluster lets this server in at {config.ray}: {error}",
                fix="look at `ray status` there; to one with a token, export RAY_AUTH_MODE=token",
            ) from error
        return
    # Replicas import what this process does, and nothing listens on other machines' behalf. Without
    # the address Ray would join whatever cluster was started here last, even one that has ended.
    paths = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
