"""Where the store lies: one schema and one dialect of SQL, for SQLite and for PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from engines import commands
from engines.errors import FaceDiffuserError, NotInstalledError

# Types by names that both know: SQLite stores a double for DOUBLE PRECISION and bytes for BYTEA.
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS identities (
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        expires DOUBLE PRECISION NOT NULL,
        consent TEXT NOT NULL,
        sealed BYTEA NOT NULL,
        PRIMARY KEY (tenant, id)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS allowances (
        tenant TEXT NOT NULL,
        kind TEXT NOT NULL,
        available DOUBLE PRECISION NOT NULL,
        since DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (tenant, kind)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        expires DOUBLE PRECISION NOT NULL,
        cancelled INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS request_keys (
        digest BYTEA PRIMARY KEY,
        fingerprint BYTEA NOT NULL,
        seed BIGINT NOT NULL,
        job TEXT NOT NULL,
        used DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant)",
    "CREATE INDEX IF NOT EXISTS request_keys_by_time ON request_keys (used)",
)

# Runs a statement, with `?` for each value, and gives its rows.
Run = Callable[..., list[tuple[Any, ...]]]


class StoreError(FaceDiffuserError):
    """The store does not answer, or refuses what it is told."""


class Database(Protocol):
    """One connection, used by one call at a time, from any thread.

    waits: whether a call may take long, for a disk, a network or other servers.
    """

    @property
    def waits(self) -> bool: ...

    def transaction(self, lock: str | None = None) -> AbstractContextManager[Run]:
        """All that is run within happens at once or not at all.

        lock: what no other transaction of the same name, of any server, is under way beside. Raises
        StoreError.
        """
        ...

    def run(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        """A transaction of one statement. Raises StoreError."""
        ...

    def close(self) -> None: ...


def create_tables(database: Database) -> None:
    """Those that are not there; raises StoreError."""
    with database.transaction("schema") as run:
        for words in _SCHEMA:
            run(words)


def opened(where: str | None) -> Database:
    """The database of a setting: a URL of PostgreSQL, a file of SQLite, or None for memory alone.

    Raises StoreError, and NotInstalledError where PostgreSQL's client is missing.
    """
    from server.store.sqlite import Sqlite

    if where is None or not is_url(where):
        return Sqlite(None if where is None else Path(where))
    try:
        from server.store.postgresql import Postgresql
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            f"a store in PostgreSQL needs {error.name}; type",
            fix=commands.installed("server", "server-postgresql"),
        ) from error
    return Postgresql(where)


def is_url(where: str) -> bool:
    """Whether a setting names a database server, and no file."""
    return where.startswith(("postgresql://", "postgres://"))
