"""What a server is told: one frozen dataclass, from flags, a TOML file, or both."""

from __future__ import annotations

import ipaddress
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from engines.bundle.records import Count, Range, Seconds
from engines.errors import FaceDiffuserError
from runtime import HostPrecision, Provider, Quantization


class ConfigError(FaceDiffuserError, ValueError):
    """A server was told what it cannot do."""


def _flag(group: str, about: str, **said: Any) -> dict[str, Any]:
    return {"group": group, "help": about, **said}


# What the settings are about, as --help lists them.
_LISTENING, _DRAWING, _PEOPLE = "who is served", "where it is computed", "people"
_CLUSTER = "on a cluster"
_TENANT, _LIMITS = "limits of one tenant", "limits of the server"


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Raises ConfigError for settings that do not go together."""

    host: str = field(default="127.0.0.1", metadata=_flag(_LISTENING, "address to listen on"))
    port: Annotated[int, Range(0, 65535)] = field(
        default=8000, metadata=_flag(_LISTENING, "port to listen on; 0 takes a free one")
    )
    provider: Provider | None = field(
        default=None,
        metadata=_flag(_DRAWING, "compute on this one or fail (default: the first that a GPU here "
                       "runs, or the fastest measured on this processor)"),
    )  # fmt: skip
    precision: HostPrecision | None = field(
        default=None,
        metadata=_flag(_DRAWING, "of the U-Nets on a CPU (default: the faster measured)"),
    )
    threads: Count | None = field(
        default=None,
        metadata=_flag(
            _DRAWING, "processor cores to use (default: the fastest number measured, else all)"
        ),
    )
    quantization: Quantization | None = field(
        default=None,
        metadata=_flag(
            _DRAWING,
            "take the U-Nets in 8 bits, of a bundle that has them (default: their own precision)",
        ),
    )
    low_memory: bool = field(
        default=False, metadata=_flag(_DRAWING, "hold only the engines that compute")
    )
    ray: str | None = field(
        default=None,
        metadata=_flag(_CLUSTER, "compute on a Ray cluster: its address, auto for this machine's, "
                       "or local to start one here (default: in this process)"),
    )  # fmt: skip
    engines: Count = field(
        default=1, metadata=_flag(_CLUSTER, "engines on the cluster, each with a picture at a time")
    )
    engines_least: Count | None = field(
        default=None,
        metadata=_flag(_CLUSTER, "engines that stay while fewer pictures are asked for than all "
                       "can draw (default: all)"),
    )  # fmt: skip
    engines_idle_s: Seconds = field(
        default=600.0,
        metadata=_flag(_CLUSTER, "seconds that more engines than are needed stay all the same"),
    )
    redraws: Annotated[int, Range(0, 100)] = field(
        default=3,
        metadata=_flag(_CLUSTER, "times that a picture is drawn again because the engine that drew "
                       "it died"),
    )  # fmt: skip
    engine_gpus: Annotated[float, Range(0, 8)] | None = field(
        default=None,
        metadata=_flag(_CLUSTER, "GPUs that an engine takes (default: 1 where there are any)"),
    )
    keys: Path | None = field(
        default=None,
        metadata=_flag(_LISTENING, "TOML file of tenants and the SHA-256 of their keys (default: "
                       "none, and only this machine is served)"),
    )  # fmt: skip
    store: str | None = field(
        default=None,
        metadata=_flag(_PEOPLE, "where identities, limits and Idempotency-Keys are kept, for one "
                       "server or several: a SQLite file, or a URL as postgresql://user@host/name "
                       "(default: none, and they end with the server)"),
    )  # fmt: skip
    identity_key: Path | None = field(
        default=None,
        metadata=_flag(_PEOPLE, "file with the base64 of the 32 bytes that identities are "
                       "encrypted with (default: the environment's FACE_DIFFUSER_IDENTITY_KEY)"),
    )  # fmt: skip
    identity_days: Annotated[float, Range(0.0001, 3650)] = field(
        default=30.0, metadata=_flag(_PEOPLE, "days that an identity is kept at most")
    )
    queue: Count = field(default=32, metadata=_flag(_LIMITS, "jobs that may wait, of all tenants"))
    tenant_jobs: Count = field(
        default=16, metadata=_flag(_TENANT, "jobs that a tenant may have waiting and running")
    )
    tenant_pictures: Count = field(
        default=600, metadata=_flag(_TENANT, "pictures a tenant may have a minute")
    )
    tenant_steps: Count = field(
        default=60_000,
        metadata=_flag(_TENANT, "steps times images that a tenant may have a minute"),
    )
    tenant_identities: Count = field(
        default=1000, metadata=_flag(_TENANT, "identities of a tenant")
    )
    max_pixels: Count = field(
        default=4 * 1024 * 1024,
        metadata=_flag(_LIMITS, "height times width times images of one job"),
    )
    max_upload_mib: Count = field(default=20, metadata=_flag(_LIMITS, "MiB of one request's body"))
    max_photo_pixels: Count = field(
        default=64_000_000, metadata=_flag(_LIMITS, "pixels of a photo that is decoded")
    )
    timeout_s: Seconds = field(
        default=600.0, metadata=_flag(_LIMITS, "seconds from admission that a job may take at most")
    )
    keep_s: Seconds = field(
        default=600.0, metadata=_flag(_LIMITS, "seconds that a finished job is kept")
    )
    keep_mib: Count = field(
        default=256, metadata=_flag(_LIMITS, "MiB of finished jobs that are kept")
    )
    drain_s: Seconds = field(
        default=60.0,
        metadata=_flag(_LISTENING, "seconds after SIGTERM in which admitted jobs may end"),
    )
    notice_s: Seconds = field(
        default=0.5,
        metadata=_flag(_LISTENING, "seconds after SIGTERM that the port still answers 'not ready'"),
    )

    def __post_init__(self) -> None:
        if self.keys is None and not is_loopback(self.host):
            raise ConfigError(
                f"without keys a server listens on this machine alone, not on {self.host}",
                fix="write a file of tenants (docs/serving.md) and give it as --keys",
            )
        of_cluster = (self.engines, self.engines_least, self.engine_gpus)
        if self.ray is None and of_cluster != (1, None, None):
            raise ConfigError(
                "engines, engines_least and engine_gpus are of a cluster; name it with --ray, or "
                "leave them out"
            )
        if self.engines_least is not None and self.engines_least > self.engines:
            raise ConfigError(f"engines_least {self.engines_least} are more than {self.engines}")
        if self.keys is not None and not self.keys.is_file():
            raise ConfigError(f"there is no file of keys at {self.keys}")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def settings_of(path: Path) -> dict[str, Any]:
    """A TOML file's settings by field, the checks left to ServerConfig. Raises ConfigError."""
    known = {each.name for each in fields(ServerConfig)}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    if unknown := sorted(set(settings) - known):
        raise ConfigError(
            f"{path} has the unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    return settings
