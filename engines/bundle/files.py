"""Files that are either whole or absent: written to a temporary name, fsynced, renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.records import Nbytes, Sha256

TEMPORARY_SUFFIX = ".partial"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size and digest of one file."""

    nbytes: Nbytes
    sha256: Sha256

    def describes(self, path: Path) -> bool:
        """Whether a file is there, whole and unaltered; reads all of it."""
        whole = path.is_file() and path.stat().st_size == self.nbytes
        return whole and sha256_of_file(path) == self.sha256


def file_record(path: Path) -> FileRecord:
    """Size and digest of a file as it is."""
    return FileRecord(nbytes=path.stat().st_size, sha256=sha256_of_file(path))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed build left under temporary names."""
    for path in folder.rglob("*" + TEMPORARY_SUFFIX):
        path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
