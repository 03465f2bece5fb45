"""Which way to run the fusion stage is decided by the median of what was measured."""

from __future__ import annotations

from typing import Any, cast

from engines.cuda.gpu import Event, Stream
from runtime.gpu.programs import Concurrency, step_times


class _Clock:
    """A stream and both events, with milliseconds that are read one after another."""

    def __init__(self, spent_ms: list[float]) -> None:
        self._spent_ms = iter(spent_ms)
        self.calls: list[str] = []

    def record(self, event: Any) -> None:
        self.calls.append("record")

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def ms_since(self, start: Any) -> float:
        return next(self._spent_ms)


def test_the_median_counts_and_the_first_trial_does_not() -> None:
    """The first trial reads no clock; then the two take turns."""
    clock = _Clock([1.0, 30.0, 2.0, 10.0, 9.0, 20.0])
    steps = {each: lambda each=each: clock.calls.append(each.value) for each in Concurrency}
    spent = step_times(
        cast(dict[Concurrency, Any], steps), cast(Stream, clock),
        lambda: clock.calls.append("reset"), cast(list[Event], [clock, clock]), trials=3,
    )  # fmt: skip
    assert spent == {Concurrency.SERIAL: 2.0, Concurrency.CONCURRENT: 20.0}
    one = ["reset", "record", "serial", "record", "synchronize"]
    other = ["reset", "record", "concurrent", "record", "synchronize"]
    assert clock.calls == (one + other) * 4
