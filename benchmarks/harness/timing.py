"""The timing harness: repeated runs after a warm-up, and rounds in which all take turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], float]


def elapsed_ms(function: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Milliseconds of one run; the function waits for whatever it starts."""
    start = clock()
    function()
    return (clock() - start) * 1e3


def repeated_ms(
    function: Callable[[], object],
    *,
    repeats: int,
    warmup: int = 1,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Milliseconds of each of `repeats` runs, after `warmup` runs that do not count."""
    for _ in range(warmup):
        function()
    return [elapsed_ms(function, clock) for _ in range(repeats)]


def interleaved_ms(
    runs: Mapping[str, Callable[[], float]], *, rounds: int, seed: int = 0
) -> dict[str, list[float]]:
    """Call each once a round, in an order drawn anew; each gives its milliseconds.

    Drift of the machine (heat, other work) then meets all alike, and none always goes first.
    """
    draw = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in draw.sample(sorted(runs), len(runs)):
            times[name].append(runs[name]())
    return times
