"""Keeps two builds out of one bundle."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.folder import BUILD_FOLDER
from engines.errors import BundleError, FaceDiffuserError

# What a file system says that knows no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class BundleBusyError(BundleError):
    """Another process is building this bundle."""


@contextmanager
def build_lock(bundle: Path) -> Iterator[None]:
    """Hold a bundle's build lock; it goes with the process, however that ends.

    On a file system without locks it warns and holds none. Raises BundleBusyError if another
    process holds it.
    """
    folder = bundle / BUILD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    filelock = _filelock()
    lock = filelock.FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise BundleBusyError(
            f"another build is writing {bundle}; wait for it or name another bundle"
        ) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {bundle} knows no locks: nothing keeps a second build out of it",
            RuntimeWarning,
            stacklevel=3,
        )
    try:
        yield
    finally:
        lock.release()


def _filelock() -> Any:
    try:
        return import_module("filelock")
    except ImportError as error:
        raise FaceDiffuserError(
            "building needs filelock, which is not installed; install it with",
            fix=commands.installed("export"),
        ) from error
