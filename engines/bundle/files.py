"""Files that are either whole or absent: written to a temporary name, fsynced, renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.records import Nbytes, Sha256
from engines.errors import FaceDiffuserError

TEMPORARY_SUFFIX = ".partial"
_TEMPORARY_NAME = re.compile(r".*\.[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX), re.DOTALL)

# What a file system says that does not know an operation.
_NO_SUCH_THING = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)


class FileRefusedError(FaceDiffuserError):
    """What lies at the path of a file that is about to be written must stay as it is."""


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
def atomic_path(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary file beside `path`; rename it into place only if the block succeeds.

    Its name cannot be foretold and nothing that is there already is opened. mode: the file's
    permissions; by default those of the file that is replaced, or of any new one. Raises
    FileRefusedError where `path` is something else than a file that may be written.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    # Permissions of a new file, which the system lessens by the user's mask.
    created = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode or 0o666)
    os.close(created)
    try:
        if mode is None and path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        yield temporary
        with temporary.open("rb+") as file:
            _fsync(file.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a whole file atomically; arguments and errors are atomic_path's."""
    with atomic_path(path, mode=mode) as temporary:
        temporary.write_bytes(content)


def check_replaceable(path: Path) -> None:
    """Raise FileRefusedError unless a path is free or a regular file that its owner may write.

    A symbolic link is refused too: who planted it would choose what is replaced.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise FileRefusedError(f"{path} is a symbolic link and is left alone; name its target")
    if not stat.S_ISREG(found.st_mode):
        raise FileRefusedError(f"{path} is there and is no regular file; name another")
    if not found.st_mode & stat.S_IWUSR:
        raise FileRefusedError(
            f"{path} is there and is read-only; name another or make it writable"
        )


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """The same of content that was read."""
    return hashlib.sha256(content).hexdigest()


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed build left under temporary names."""
    for path in folder.rglob("*" + TEMPORARY_SUFFIX):
        if _TEMPORARY_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # a folder that may be written and not read
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int) -> None:
    """Bring content to the disk, where the file system can be told to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise
