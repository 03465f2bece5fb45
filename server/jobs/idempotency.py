"""Requests that a client may send twice: the same key is the same job, and the same seed."""

from __future__ import annotations

from dataclasses import dataclass

from server.problem import Problem

_MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """What a key was first used for. fingerprint: of the request, to tell another one."""

    fingerprint: bytes
    seed: int
    job_id: str


class Keys:
    """The latest keys of all tenants, in memory; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], Repeat] = {}

    def find(self, tenant: str, key: str, fingerprint: bytes) -> Repeat | None:
        """What a key was used for. Raises Problem if that was another request."""
        found = self._used.get((tenant, key))
        if found is not None and found.fingerprint != fingerprint:
            raise Problem(
                422, "idempotency_key_reused",
                "this Idempotency-Key was used for another request; take a new one",
            )  # fmt: skip
        return found

    def note(self, tenant: str, key: str, repeat: Repeat) -> None:
        self._used.pop((tenant, key), None)
        self._used[tenant, key] = repeat
        while len(self._used) > _MOST:
            del self._used[next(iter(self._used))]
