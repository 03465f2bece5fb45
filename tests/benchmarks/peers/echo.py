"""A peer whose runs take no time; imports little, as its process starts often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.peers.work import TimedRun
from engines.errors import ProviderUnavailableError


def echoing(*, factor: float, fails: str = "", **_: Any) -> Callable[..., TimedRun]:
    """Answers that it took `factor` milliseconds, and as its memory what it was told to say."""
    if fails == "here":
        raise ProviderUnavailableError("not on this machine")
    if fails == "package":
        raise ModuleNotFoundError("No module named 'fancy'", name="fancy.kernels")
    if fails == "own module":
        raise ModuleNotFoundError("No module named 'engines.x'", name="engines.x")

    def answer(say: int = 0) -> TimedRun:
        print("libraries print")
        return TimedRun(ms=factor, gpu_nbytes=None, peak_rss_nbytes=say)

    return answer
