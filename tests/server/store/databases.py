"""Databases for tests: files of SQLite, and a real PostgreSQL that is started for the run.

FACE_DIFFUSER_POSTGRESQL in the environment names one that runs already, in which databases may be
made; otherwise Debian's and Ubuntu's package `postgresql` is enough. Without either, what needs
PostgreSQL is skipped.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VARIABLE = "FACE_DIFFUSER_POSTGRESQL"
_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL."""
    if url := os.environ.get(VARIABLE):
        yield url
        return
    programs = _programs()
    # A folder of its own: PostgreSQL refuses to run as root, and its user reads no other's folders.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    user = _user(folder)
    data = folder / "data"

    def run(program: str, *words: str) -> None:
        command = [str(programs / program), "-D", str(data), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)

    try:
        run("initdb", "--auth", "trust", "--username", "tests", "--no-sync")
        # No port: who may enter the folder may connect.
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "-o", options, "-l", str(folder / "log"))
        try:
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """The URL of an empty database."""
    psycopg = pytest.importorskip("psycopg")
    name = f"face_diffuser_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield url.replace("/postgres", f"/{name}", 1)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path:
    if found := shutil.which("pg_ctl"):
        return Path(found).parent
    versions = sorted(_DEBIAN.glob("*/bin/pg_ctl")) if _DEBIAN.is_dir() else []
    if not versions:
        pytest.skip(f"there is no PostgreSQL here, and {VARIABLE} names none")
    return versions[-1].parent


def _user(folder: Path) -> int | None:
    """Whose process it is; None for ours."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam("postgres").pw_uid
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    os.chown(folder, user, -1)
    return user
