"""Where a store lies: each test runs on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.store.databases import new_database, postgresql


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store's setting, as `--store` has it."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.sqlite")
        return
    with new_database(request.getfixturevalue("postgresql_url")) as url:
        yield url
