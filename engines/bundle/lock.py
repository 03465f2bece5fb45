"""Keeps two builds out of one bundle."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.bundle.folder import BUILD_FOLDER
from engines.errors import BundleError


class BundleBusyError(BundleError):
    """Another process is building this bundle."""


@contextmanager
def build_lock(bundle: Path) -> Iterator[None]:
    """Hold a bundle's build lock; it goes with the process, however that ends.

    Raises BundleBusyError if another process holds it.
    """
    folder = bundle / BUILD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BundleBusyError(
                f"another build is writing {bundle}; wait for it or name another bundle"
            ) from error
        yield
