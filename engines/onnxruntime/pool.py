"""One pool of threads for all ONNX Runtime sessions of a process, instead of one for each."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any


class ThreadPool:
    """What the sessions of this process compute with; not shared until somebody asks for it.

    ONNX Runtime makes its shared pool once a process, and then refuses every session that wants
    threads of its own, also an application's: so sharing is for who owns the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_shared = self._is_made = False

    def share(self) -> None:
        """Let all sessions that are made from now on share one pool."""
        with self._lock:
            self._is_shared = True

    def give(self, ort: ModuleType, options: Any, threads: int, own: int | None) -> None:
        """Let a session's options say what it computes with.

        threads: of the shared pool, which the first session makes. own: of the session's own pool,
        where none is shared, or where this ONNX Runtime can share none; None for its default.
        """
        with self._lock:
            make = getattr(ort, "set_global_thread_pool_sizes", None)
            if self._is_shared and not self._is_made and make is not None:
                make(threads, 1)
                self._is_made = True
            if self._is_made:
                options.use_per_session_threads = False
            elif own is not None:
                options.intra_op_num_threads = own


POOL = ThreadPool()


def share_threads() -> None:
    """Let ONNX Runtime compute with one pool of threads for all that this process opens.

    For a program that owns its process: as many threads as it asks for are all that there are, and
    none of them waits in the way of others. The first bundle that opens says how many. Sessions
    that the program makes itself must then say `use_per_session_threads = False`.
    """
    POOL.share()
