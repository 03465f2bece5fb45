"""Sealed identities: rows by tenant and id."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from server.identities.vault import Row
from server.store.database import Database

_ROW = "tenant, id, created, expires, consent"


class Identities:
    """Times are seconds since 1970. Each method raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: Row, sealed: bytes, *, most: int) -> bool:
        """Whether the tenant may have one more, and it was kept."""
        with self._database.transaction(row.tenant) as run:
            words = "SELECT COUNT(*) FROM identities WHERE tenant = ? AND expires > ?"
            if run(words, row.tenant, row.created)[0][0] >= most:
                return False
            values = (row.tenant, row.id, row.created, row.expires, row.consent, sealed)
            run(f"INSERT INTO identities ({_ROW}, sealed) VALUES (?, ?, ?, ?, ?, ?)", *values)
            return True

    def find(self, tenant: str, identity_id: str, now: float) -> tuple[Row, bytes] | None:
        """A row that has not expired."""
        found = self._database.run(
            f"SELECT {_ROW}, sealed FROM identities WHERE tenant = ? AND id = ? AND expires > ?",
            tenant, identity_id, now,
        )  # fmt: skip
        return (_row(found[0][:5]), bytes(found[0][5])) if found else None

    def of_tenant(self, tenant: str, now: float) -> list[Row]:
        """A tenant's rows, the oldest first."""
        found = self._database.run(
            f"SELECT {_ROW} FROM identities WHERE tenant = ? AND expires > ? ORDER BY created",
            tenant, now,
        )  # fmt: skip
        return list(map(_row, found))

    def gone(self, tenant: str, ids: Collection[str], now: float) -> set[str]:
        """Those of a tenant's ids that are not there any more, whoever removed them."""
        places = ", ".join("?" * len(ids))
        found = self._database.run(
            f"SELECT id FROM identities WHERE tenant = ? AND expires > ? AND id IN ({places})",
            tenant, now, *ids,
        )  # fmt: skip
        return set(ids) - {each for (each,) in found}

    def remove(self, tenant: str, identity_id: str) -> bool:
        """Whether it was there."""
        words = "DELETE FROM identities WHERE tenant = ? AND id = ? RETURNING id"
        return bool(self._database.run(words, tenant, identity_id))

    def remove_expired(self, now: float) -> list[Row]:
        """The rows that were removed."""
        words = f"DELETE FROM identities WHERE expires <= ? RETURNING {_ROW}"
        found = self._database.run(words, now)
        return list(map(_row, found))

    def count(self) -> int:
        return int(self._database.run("SELECT COUNT(*) FROM identities")[0][0])


def _row(values: tuple[Any, ...]) -> Row:
    tenant, identity_id, created, expires, consent = values
    return Row(tenant=tenant, id=identity_id, created=created, expires=expires, consent=consent)
