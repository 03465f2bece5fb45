"""Whose request it is: the hook that says so, and the one that reads a file of keys."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from starlette.requests import HTTPConnection

from engines.bundle.records import Pattern, Sha256, read
from server.config import ConfigError


class Priority(StrEnum):
    """Which jobs are drawn first; within one, tenants share by the work they ask for."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 is drawn first."""
        return [Priority.HIGH, Priority.NORMAL, Priority.LOW].index(self)


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """priority: the highest that this tenant's jobs may have."""

    name: str
    priority: Priority = Priority.NORMAL


# None refuses the request. A plain function may wait for others: it is called in a thread.
Authenticate = Callable[[HTTPConnection], Tenant | Awaitable[Tenant | None] | None]

# Everyone on this machine, where there are no keys.
LOCAL = Tenant(name="local", priority=Priority.HIGH)


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """One tenant's key in a file of keys; a tenant may have several."""

    name: Annotated[str, Pattern(r"[\w.@-]{1,64}", "1 to 64 letters, digits and _.@-")]
    key_sha256: Sha256
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    tenants: tuple[KeyRecord, ...]


async def everyone(connection: HTTPConnection) -> Tenant | None:
    """The one tenant of a server without keys."""
    return LOCAL


def by_key(path: Path) -> Authenticate:
    """Whoever sends a key of a file as `Authorization: Bearer KEY`. Raises ConfigError."""
    try:
        records = read(KeyFile, tomllib.loads(path.read_text(encoding="utf-8"))).tenants
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no file of keys: {error}; see docs/serving.md") from error
    tenants = {each.key_sha256: Tenant(name=each.name, priority=each.priority) for each in records}

    async def authenticate(connection: HTTPConnection) -> Tenant | None:
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return tenants.get(hashlib.sha256(key.strip().encode()).hexdigest())

    return authenticate
