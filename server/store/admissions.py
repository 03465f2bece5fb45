"""What tenants have under way and may still ask for, and what requests were sent before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.store.database import Database, Run

# Keys of requests that are remembered; the oldest are forgotten first.
_MOST_KEYS = 10_000


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """What a key was first used for. fingerprint: of the request, to tell another one."""

    fingerprint: bytes
    seed: int
    job: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job that is to be admitted.

    amounts: what it takes of each of the tenant's allowances. lasts_s: until it has ended for
    certain, should its server not live to say so. key: digest of the client's key, None without
    one. known: what that key was used for, as it was read before.
    """

    tenant: str
    repeat: Repeat
    amounts: Mapping[str, int]
    lasts_s: float
    key: bytes | None = None
    known: Repeat | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """reason: "jobs", "key" (another server admitted the same request just now) or an allowance's
    name. wait_s: until it may do better; None where nobody knows."""

    reason: str
    wait_s: float | None = None


class Admissions:
    """Limits hold for a tenant, however many servers it asks. Each method raises StoreError.

    most_jobs: of a tenant at once. a_minute: what each allowance holds and is filled with in a
    minute, evenly. clock: seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        most_jobs: int,
        a_minute: Mapping[str, int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._clock = database, clock
        self._most_jobs, self._a_minute = most_jobs, a_minute

    def admit(self, claim: Claim) -> Refusal | None:
        """Take a job in, and what it asks for; None where that was done."""
        now, job = self._clock(), claim.repeat.job
        with self._database.transaction(claim.tenant) as run:
            if claim.key is not None and _used_for(run, claim.key) != claim.known:
                return Refusal(reason="key")
            words = "SELECT COUNT(*) FROM jobs WHERE tenant = ? AND expires > ?"
            if run(words, claim.tenant, now)[0][0] >= self._most_jobs:
                return Refusal(reason="jobs")
            left = self._left(run, claim.tenant, now)
            for kind, amount in claim.amounts.items():
                if amount > left[kind]:
                    wait_s = (amount - left[kind]) * 60 / self._a_minute[kind]
                    return Refusal(reason=kind, wait_s=wait_s)
            for kind, amount in claim.amounts.items():
                run(
                    "INSERT INTO allowances (tenant, kind, available, since) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (tenant, kind) DO UPDATE "
                    "SET available = excluded.available, since = excluded.since",
                    claim.tenant, kind, left[kind] - amount, now,
                )  # fmt: skip
            words = "INSERT INTO jobs (id, tenant, expires, cancelled) VALUES (?, ?, ?, 0)"
            run(words, job, claim.tenant, now + claim.lasts_s)
            if claim.key is not None:
                run(
                    "INSERT INTO request_keys (digest, fingerprint, seed, job, used) "
                    "VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET job = excluded.job, "
                    "seed = excluded.seed, fingerprint = excluded.fingerprint, "
                    "used = excluded.used",
                    claim.key, claim.repeat.fingerprint, claim.repeat.seed, job, now,
                )  # fmt: skip
        return None

    def used_for(self, key: bytes) -> Repeat | None:
        """What a key was used for."""
        return _used_for(self._database.run, key)

    def end(self, job: str) -> None:
        """A job is not under way any more."""
        self._database.run("DELETE FROM jobs WHERE id = ?", job)

    def cancel(self, tenant: str, job: str) -> bool:
        """Tell the server that has a tenant's job to cancel it; whether any server has it."""
        found = self._database.run(
            "UPDATE jobs SET cancelled = 1 WHERE id = ? AND tenant = ? AND expires > ? "
            "RETURNING id",
            job, tenant, self._clock(),
        )  # fmt: skip
        return bool(found)

    def cancelled(self) -> set[str]:
        """The jobs, of all servers, that `cancel` was called for and that have not ended."""
        found = self._database.run("SELECT id FROM jobs WHERE cancelled = 1")
        return {job for (job,) in found}

    def sweep(self) -> None:
        """Forget the jobs of servers that are gone, and the oldest of too many keys."""
        with self._database.transaction() as run:
            run("DELETE FROM jobs WHERE expires <= ?", self._clock())
            run(
                "DELETE FROM request_keys WHERE used <= "
                "(SELECT used FROM request_keys ORDER BY used DESC LIMIT 1 OFFSET ?)",
                _MOST_KEYS,
            )

    def _left(self, run: Run, tenant: str, now: float) -> dict[str, float]:
        """Of each of a tenant's allowances, by kind."""
        left = {kind: float(most) for kind, most in self._a_minute.items()}
        found = run("SELECT kind, available, since FROM allowances WHERE tenant = ?", tenant)
        for kind, available, since in found:
            if (most := self._a_minute.get(kind)) is not None:
                # Another server's clock may be a little ahead.
                left[kind] = min(most, float(available) + max(0.0, now - since) * most / 60)
        return left


def _used_for(run: Run, key: bytes) -> Repeat | None:
    found = run("SELECT fingerprint, seed, job FROM request_keys WHERE digest = ?", key)
    if not found:
        return None
    fingerprint, seed, job = found[0]
    return Repeat(fingerprint=bytes(fingerprint), seed=seed, job=job)
