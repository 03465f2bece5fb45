"""The two streams of a GPU backend, and how work forks onto the second and joins again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from engines.cuda.gpu import Event, Gpu, Stream


@dataclass(frozen=True)
class Streams:
    """main: where everything is in order. side: SDM's, while it runs beside TDM."""

    main: Stream
    side: Stream
    forked: Event
    joined: Event

    @classmethod
    def opened(cls, gpu: Gpu, stack: ExitStack) -> Streams:
        """Streams and events that are destroyed when the stack closes."""
        forked, joined = (gpu.event(stack, name) for name in ("the fork", "the join"))
        main, side = (gpu.stream(stack, name) for name in ("the main stream", "the side stream"))
        return cls(main, side, forked, joined)

    def beside(self, on_side: Callable[[int], None], on_main: Callable[[int], None]) -> None:
        """Enqueue two pieces of work side by side; what comes next on main waits for both."""
        self.main.record(self.forked)
        self.side.wait(self.forked)
        on_side(self.side.handle)
        self.side.record(self.joined)
        on_main(self.main.handle)
        self.main.wait(self.joined)
