"""The store in PostgreSQL, for servers on several machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from server.store.database import Run, StoreError, create_tables

# A database that is gone for longer is told to the client, who may try again.
_CONNECT_S, _STATEMENT = 5, "5s"
# Of the locks' names, which a database shares among all that use it.
_LOCKS = "face-diffuser "


class Postgresql:
    """url: of libpq, whose passwords may also come from its own files and environment.

    A connection that was lost is made again by the next transaction. Raises StoreError.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = threading.Lock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        create_tables(self)

    @property
    def waits(self) -> bool:
        return True

    @contextmanager
    def transaction(self, lock: str | None = None) -> Iterator[Run]:
        with self._turn:
            try:
                connection = self._begun(lock)
                try:
                    yield self._run
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except psycopg.Error as error:
                # What is left of it is in an unknown state.
                self._disconnect()
                raise StoreError(f"{self._where()} does not serve: {error}") from error

    def run(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        # Not sent alone: whether a statement took place is unknown where its connection is lost.
        with self.transaction() as run:
            return run(words, *values)

    def close(self) -> None:
        with self._turn:
            self._disconnect()

    def _begun(self, lock: str | None) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in a transaction that has the lock; one that was lost is replaced, once."""
        for last in (self._connection is None, True):
            connection = self._connection = self._connection or self._connected()
            try:
                connection.execute("BEGIN")
                if lock is not None:
                    words = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
                    connection.execute(words, [_LOCKS + lock])
                return connection
            except psycopg.OperationalError:
                self._disconnect()
                if last:
                    raise
        raise AssertionError

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = psycopg.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_S, prepare_threshold=None,
            application_name="face-diffuser",
        )  # fmt: skip
        connection.execute(f"SET statement_timeout = '{_STATEMENT}'")
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        ran = self._connection.execute(words.replace("?", "%s"), values)
        return [] if ran.description is None else ran.fetchall()

    def _where(self) -> str:
        """The database without its password."""
        known = conninfo_to_dict(self._url)
        return f"PostgreSQL ({known.get('host', 'local')}, database {known.get('dbname', '')})"
