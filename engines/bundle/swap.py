"""A rebuild beside a good bundle: what is there works until the new one takes its place whole."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from engines.bundle.folder import BUILD_FOLDER
from engines.bundle.manifest import MANIFEST_NAME

# Linux's renameat2: exchange two folders in one step (linux/fs.h, fcntl.h).
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


def folder_beside(bundle: Path) -> Path:
    """Where a bundle that is there already is built anew: a hidden folder beside it."""
    target = bundle.resolve()
    return target.with_name(f".{target.name}.next")


def can_swap(bundle: Path) -> bool:
    """Whether a folder beside a bundle can take its place: not where a disk is mounted on it."""
    target = bundle.resolve()
    return not target.is_mount() and os.access(target.parent, os.W_OK)


def seed(bundle: Path, beside: Path) -> None:
    """Give the folder beside what the bundle has, as links to the same files, so that what a build
    keeps takes no time and no room; what an earlier build left there stays."""
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle)
        copy = beside / name
        if path.is_dir() and not path.is_symlink():
            copy.mkdir(parents=True, exist_ok=True)
        elif str(name) != MANIFEST_NAME and name.parts != (BUILD_FOLDER, "lock"):
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                _linked(path, copy)


def swap(bundle: Path, beside: Path) -> None:
    """Put the finished folder in the bundle's place, and remove what was there."""
    target = bundle.resolve()
    if not _exchanged(target, beside):
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        beside.rename(target)
        beside = old
    shutil.rmtree(beside, ignore_errors=True)


def _linked(path: Path, copy: Path) -> None:
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copy2(path, copy)  # a file system without links


def _exchanged(first: Path, second: Path) -> bool:
    """Exchange two folders at once, where the system can: at no time is one of them missing."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    words = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(renameat2(*words) == 0)
