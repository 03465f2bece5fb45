"""Files appear whole, under names that nobody can foretell, and leave what is not theirs."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engines.bundle import lock
from engines.bundle.files import atomic_path, remove_partial_files, write_atomic


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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_no_other_build(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FileLock:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def acquire(self) -> None:
            raise OSError(number, os.strerror(number))

        def release(self) -> None: ...

    class Filelock:
        Timeout = TimeoutError

    Filelock.FileLock = FileLock  # type: ignore[attr-defined]
    monkeypatch.setattr(lock, "_filelock", Filelock)
    with pytest.warns(RuntimeWarning, match="knows no locks"), lock.build_lock(tmp_path):
        pass
