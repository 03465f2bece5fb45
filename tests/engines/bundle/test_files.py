"""Files appear whole, under names that nobody can foretell, and leave what is not theirs."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engines.bundle import lock
from engines.bundle.files import (
    FileRecord,
    FileRefusedError,
    atomic_path,
    file_record,
    remove_partial_files,
    write_atomic,
)


def test_two_writers_of_one_path_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    with ThreadPoolExecutor(4) as writers:
        for _ in writers.map(lambda n: write_atomic(path, bytes([n]) * 1000), range(100)):
            pass
    assert len(set(path.read_bytes())) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["picture"]


def test_a_planted_link_at_the_old_temporary_name_is_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "picture.partial").symlink_to(victim)
    write_atomic(tmp_path / "picture", b"new")
    remove_partial_files(tmp_path)
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "picture.partial").is_symlink()


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomic(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "graph") as temporary:
        left = temporary.with_name(temporary.name.replace("graph", "other"))
        left.touch()
        (tmp_path / "mine.partial").touch()
    remove_partial_files(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["graph", "mine.partial"]


def test_a_file_system_that_cannot_sync_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refused)
    write_atomic(tmp_path / "picture", b"new")
    assert (tmp_path / "picture").read_bytes() == b"new"


def test_another_failure_to_sync_is_told_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "picture").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_atomic(tmp_path / "picture", b"new")
    assert (tmp_path / "picture").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["picture"]


def test_content_reaches_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    replaced, opened, closed = Path.replace, os.open, os.close
    folders: set[int] = set()

    def sync(descriptor: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")  # noqa: PTH112
        calls.append("folder to disk" if is_folder else f"{os.fstat(descriptor).st_size} to disk")

    def rename(path: Path, target: Path) -> Path:
        calls.append("renamed")
        return replaced(path, target)

    def open_(path: Any, flags: int, *mode: int) -> int:
        descriptor = opened(path, flags, *mode)
        folders.update({descriptor} if Path(path).is_dir() else ())
        return descriptor

    def close(descriptor: int) -> None:
        folders.discard(descriptor)
        closed(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(Path, "replace", rename)
    write_atomic(tmp_path / "deep" / "er" / "picture", b"12345")
    assert calls == ["5 to disk", "renamed", "folder to disk"]
    assert not folders, "a folder was left open"


def test_a_block_that_raises_leaves_neither_file_nor_temporary(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "graph") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_writer_that_dies_half_way_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "manifest.json", Path.write_bytes
    path.write_bytes(b"old")

    def dies(target: Path, content: bytes) -> int:
        write(target, content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", dies)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_may_be_written_and_not_read_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refused(path: Any, *arguments: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refused)
    write_atomic(tmp_path / "picture", b"new")
    assert (tmp_path / "picture").read_bytes() == b"new"


def test_nothing_that_lies_at_the_temporary_name_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.bundle.files.secrets.token_hex", lambda _: "0" * 16)
    planted = tmp_path / f"picture.{'0' * 16}.partial"
    planted.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "picture", b"new")
    assert planted.read_bytes() == b"mine"


def test_a_new_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"old")
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "mine", b"new", mode=0o600)
        write_atomic(tmp_path / "everybodys", b"new")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("mine", "everybodys")]
    assert modes == [0o600, 0o644]


@pytest.mark.parametrize("what", ["link", "folder", "device", "read-only"])
def test_what_is_no_file_to_be_replaced_stays(what: str, tmp_path: Path) -> None:
    path = tmp_path / "there"
    match what:
        case "link":
            path.symlink_to(tmp_path / "target")
        case "folder":
            path.mkdir()
        case "device":
            os.mkfifo(path)
        case _:
            path.touch(mode=0o444)
    words = {"link": "a symbolic link", "read-only": "is read-only"}
    with pytest.raises(FileRefusedError, match=words.get(what, "no regular file")):
        write_atomic(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_a_record_describes_its_own_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_bytes(b"12345")
    record = file_record(path)
    assert record == FileRecord(nbytes=5, sha256=hashlib.sha256(b"12345").hexdigest())
    assert record.describes(path)
    for content in (b"54321", b"1234", b"123456", b""):
        path.write_bytes(content)
        assert not record.describes(path)
    assert not record.describes(tmp_path)
    assert not record.describes(tmp_path / "none")


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EIO, errno.EACCES]
)
def test_a_file_system_without_locks_is_no_other_build(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FileLock:
        def __init__(self, path: Path, *, timeout: float) -> None:
            assert timeout == 0, "who finds another build is told so at once"

        def acquire(self) -> None:
            raise OSError(number, os.strerror(number))

        def release(self) -> None: ...

    class Filelock:
        Timeout = TimeoutError

    Filelock.FileLock = FileLock  # type: ignore[attr-defined]
    monkeypatch.setattr(lock, "_filelock", Filelock)
    if number in (errno.EIO, errno.EACCES):
        with pytest.raises(OSError, match=os.strerror(number)), lock.build_lock(tmp_path):
            pass
        return
    with pytest.warns(RuntimeWarning, match="knows no locks"), lock.build_lock(tmp_path):
        pass
