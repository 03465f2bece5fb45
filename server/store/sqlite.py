"""The store in a file of SQLite, for the servers of one machine, or in memory for one server."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.store.database import Run, StoreError, create_tables

# Other servers of this machine write too.
_WAIT_S = 5.0
_MEMORY = ":memory:"


class Sqlite:
    """path: None keeps all in memory. Raises StoreError for a file that cannot be written or is
    none of SQLite's."""

    def __init__(self, path: Path | None) -> None:
        self._where = _MEMORY if path is None else os.fspath(path)
        self._turn = threading.Lock()
        try:
            if path is not None:
                # Made for its owner alone before SQLite opens it.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                self._where, check_same_thread=False, isolation_level=None, timeout=_WAIT_S
            )
            # What is deleted is overwritten in the file, not only left out.
            self._run("PRAGMA secure_delete = ON")
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error
        create_tables(self)

    @property
    def waits(self) -> bool:
        return self._where != _MEMORY

    @contextmanager
    def transaction(self, lock: str | None = None) -> Iterator[Run]:
        """SQLite has one writer at a time: any transaction excludes all others."""
        with self._turn:
            try:
                self._run("BEGIN IMMEDIATE")
                try:
                    yield self._run
                except BaseException:
                    # Some of SQLite's own errors have ended it already.
                    if self._connection.in_transaction:
                        self._run("ROLLBACK")
                    raise
                self._run("COMMIT")
            except sqlite3.Error as error:
                raise self._error(error) from error

    def run(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._turn:
            try:
                return self._run(words, *values)
            except sqlite3.Error as error:
                raise self._error(error) from error

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def _run(self, words: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(words, values).fetchall()

    def _error(self, error: Exception) -> StoreError:
        return StoreError(f"nothing can be kept in {self._where}: {error}")
