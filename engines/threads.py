"""How many threads an engine computes with."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

from engines.errors import RequestError, shown


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_threads(threads: Any) -> int | None:
    """A number of threads that was asked for, at most one per processor; None for the default.

    Raises RequestError unless it is a whole number from 1.
    """
    if threads is None:
        return None
    whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if not whole or int(threads) < 1:
        raise RequestError(
            f"threads must be a whole number from 1, got {shown(threads)}; "
            "leave it out for the default"
        )
    return min(int(threads), processors())
