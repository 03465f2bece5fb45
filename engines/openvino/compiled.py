"""Models that OpenVINO compiled, kept for the next opening: it then takes a fraction of the time.

They are kept in the user's cache, never in a bundle's folder: a compiled model cannot be compared
with its graph, so one that came with a bundle would be taken for what it is not. A name says all
that a model was compiled from and for. A file begins with a digest of the rest, so that a damaged
one is compiled again, and with the sizes of its models; each begins at a page of its own. The
digest is the SHA-256 of the SHA-256 of each piece, which all processors compute at once: it is half
of what opening a kept model takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.bundle.files import FileRefusedError, atomic_path
from engines.system.cache import user_cache
from engines.system.processor import processor_name
from engines.threads import processors

# "never" keeps compiled models from being kept, and from being taken.
VARIABLE = "FACE_DIFFUSER_OPENVINO_CACHE"
FOLDER = "openvino"
_DIGEST_NBYTES = hashlib.sha256().digest_size
_PIECE_NBYTES = 1 << 26
# OpenVINO reads a mapped model in place and counts on its alignment.
_PAGE_NBYTES = 4096
# Nothing is kept that would take more than this share of what is free on the disk.
_MOST_OF_FREE = 0.25
# What nobody opened for so long is removed.
_UNUSED_S = 60 * 24 * 3600.0

Blob = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CompiledFile:
    """The compiled models of one component, whether or not they are kept already."""

    path: Path

    @classmethod
    def of(cls, conditions: Iterable[object]) -> CompiledFile | None:
        """Under these conditions and on this processor; None where none are to be kept.

        conditions: all that decides what OpenVINO compiles: its version, the graph's digest, its
        settings.
        """
        if os.environ.get(VARIABLE) == "never":
            return None
        known = json.dumps([processor_name(), *map(str, conditions)])
        return cls(user_cache() / FOLDER / f"{hashlib.sha256(known.encode()).hexdigest()}.models")

    def read(self) -> list[Blob] | None:
        """The models, mapped from the file; None where there are none or it is damaged."""
        try:
            content: Blob = np.memmap(self.path, np.uint8, "c")
            if content[:_DIGEST_NBYTES].tobytes() != _digest(content[_DIGEST_NBYTES:]):
                return None
            with suppress(OSError):  # the time of its last use
                os.utime(self.path)
        except (OSError, ValueError):
            return None
        blobs, start = [], _PAGE_NBYTES
        for size in content[_DIGEST_NBYTES:_PAGE_NBYTES].view("<u8").tolist():
            if size:
                blobs.append(content[start : start + size])
            start += size + _padding(size)
        return blobs

    def write(self, models: Sequence[bytes | memoryview]) -> None:
        """Keep models, where there is room; remove what nobody used for long."""
        sizes = np.zeros((_PAGE_NBYTES - _DIGEST_NBYTES) // 8, "<u8")
        sizes[: len(models)] = [len(model) for model in models]
        parts: list[bytes | memoryview] = [sizes.tobytes()]
        for model in models:
            parts += [model, bytes(_padding(len(model)))]
        with suppress(OSError, FileRefusedError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_unused(self.path.parent)
            free = shutil.disk_usage(self.path.parent).free
            if sum(map(len, models)) > _MOST_OF_FREE * free:
                return
            with atomic_path(self.path, mode=0o600) as temporary, temporary.open("wb") as file:
                file.write(bytes(_DIGEST_NBYTES))
                for part in parts:
                    file.write(part)
                file.flush()
                digest = _digest(np.memmap(temporary, np.uint8, "r", _DIGEST_NBYTES))
                file.seek(0)
                file.write(digest)


def _padding(nbytes: int) -> int:
    return -nbytes % _PAGE_NBYTES


def _digest(content: Blob) -> bytes:
    """Of all that follows the digest in a file."""
    starts = range(0, len(content), _PIECE_NBYTES)
    pieces = [content[start : start + _PIECE_NBYTES].data for start in starts]
    with ThreadPoolExecutor(processors()) as pool:
        return _sha256(b"".join(pool.map(_sha256, pieces)))


def _sha256(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def _remove_unused(folder: Path) -> None:
    for file in folder.glob("*.models"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > _UNUSED_S:
                file.unlink()
