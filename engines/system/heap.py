"""Memory of the heap that nothing uses any more, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_heap() -> None:
    """Let the C library give freed memory back, where it can (glibc).

    After an engine of Stable Diffusion 1.5's size is closed, the library otherwise keeps gigabytes
    for itself, too scattered for the next engine to use.
    """
    # Other C libraries have no such function, and mostly no need of it.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
