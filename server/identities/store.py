"""Sealed identities in SQLite: rows by tenant and id."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from server.config import ConfigError
from server.identities.vault import Row

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identities (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    consent TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
)
"""
_ROW = "tenant, id, created, expires, consent"


class Store:
    """One connection, one call at a time, from any thread. path: None keeps all in memory.

    Raises ConfigError for a file that cannot be written or is none of SQLite's.
    """

    def __init__(self, path: Path | None) -> None:
        where = ":memory:" if path is None else os.fspath(path)
        try:
            if path is not None:
                # Made for its owner alone before SQLite opens it.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(where, check_same_thread=False, isolation_level=None)
            self._lock = threading.Lock()
            # What is deleted is overwritten in the file, not only left out.
            self._all("PRAGMA secure_delete = ON")
            self._all(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"identities cannot be kept in {where}: {error}") from error

    def add(self, row: Row, sealed: bytes) -> None:
        values = (row.tenant, row.id, row.created, row.expires, row.consent, sealed)
        self._all(f"INSERT INTO identities ({_ROW}, sealed) VALUES (?, ?, ?, ?, ?, ?)", *values)

    def find(self, tenant: str, identity_id: str, now: float) -> tuple[Row, bytes] | None:
        """A row that has not expired."""
        found = self._all(
            f"SELECT {_ROW}, sealed FROM identities WHERE tenant = ? AND id = ? AND expires > ?",
            tenant, identity_id, now,
        )  # fmt: skip
        return (_row(found[0][:5]), found[0][5]) if found else None

    def of_tenant(self, tenant: str, now: float) -> list[Row]:
        """A tenant's rows, the oldest first."""
        found = self._all(
            f"SELECT {_ROW} FROM identities WHERE tenant = ? AND expires > ? ORDER BY created",
            tenant, now,
        )  # fmt: skip
        return list(map(_row, found))

    def remove(self, tenant: str, identity_id: str) -> bool:
        """Whether it was there."""
        words = "DELETE FROM identities WHERE tenant = ? AND id = ? RETURNING id"
        return bool(self._all(words, tenant, identity_id))

    def remove_expired(self, now: float) -> list[Row]:
        """The rows that were removed."""
        return list(
            map(_row, self._all(f"DELETE FROM identities WHERE expires <= ? RETURNING {_ROW}", now))
        )

    def count(self) -> int:
        return int(self._all("SELECT COUNT(*) FROM identities")[0][0])

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _all(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(words, values).fetchall()


def _row(values: tuple[Any, ...]) -> Row:
    tenant, identity_id, created, expires, consent = values
    return Row(tenant=tenant, id=identity_id, created=created, expires=expires, consent=consent)
