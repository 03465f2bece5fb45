"""Streams, events, capture and graphs of the CUDA double.

Nothing runs before somebody waits for it, and a graph's work runs in the order least expected that
its edges allow, so work that lacks an edge comes too early or too late and shows in the result, and
work that may run side by side does: a piece of one branch between two of the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

Work = Callable[[], None]


@dataclass(eq=False)
class Event:
    """recorded, reached: how often, by the host and by a stream. frontier: while captured."""

    timed: bool
    recorded: int = 0
    reached: int = 0
    at_ms: float = 0.0
    stream: Stream | None = None
    capture: Capture | None = None
    frontier: frozenset[int] = frozenset()


@dataclass(eq=False)
class Capture:
    """Nodes in the order they were captured: work, those it comes after, and how long it takes."""

    origin: Stream
    nodes: list[tuple[Work, frozenset[int], float]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    valid: bool = True

    def ancestors(self, frontier: frozenset[int]) -> set[int]:
        found: set[int] = set()
        waiting = list(frontier)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self.nodes[node][1]
        return found

    def unjoined(self) -> bool:
        """Whether some work would not be done when the origin's is."""
        return len(self.ancestors(self.origin.frontier)) < len(self.nodes)


@dataclass(eq=False)
class Stream:
    """Work in order: what it does, and what it must have come past before."""

    queue: deque[tuple[Work, Callable[[], bool]]] = field(default_factory=deque)
    capture: Capture | None = None
    frontier: frozenset[int] = frozenset()
    now_ms: float = 0.0

    def put(
        self, work: Work, blocked: Callable[[], bool] = lambda: False, *, ms: float = 1.0
    ) -> None:
        """ms: of a node of a capture; elsewhere work keeps the time itself."""
        if self.capture is None:
            self.queue.append((work, blocked))
            return
        self.capture.nodes.append((work, self.frontier, ms))
        self.frontier = frozenset({len(self.capture.nodes) - 1})

    def advance(self) -> bool:
        """Do the next piece of work; False where there is none or it must wait."""
        if not self.queue or self.queue[0][1]():
            return False
        self.queue.popleft()[0]()
        return True


@dataclass(eq=False)
class Graph:
    """A finished capture. side_by_side: how much longer work takes when it runs beside other."""

    capture: Capture

    def run(self) -> None:
        """Of what may run, what has the fewest before it comes first, then what came last."""
        nodes, done = self.capture.nodes, set[int]()
        while len(done) < len(nodes):
            ready = [n for n, (_, after, _) in enumerate(nodes) if n not in done and after <= done]
            least = min(ready, key=lambda n: (len(self.capture.ancestors(nodes[n][1])), -n))
            nodes[least][0]()
            done.add(least)

    def duration_ms(self, side_by_side: float) -> float:
        """Of all nodes, along the longest path."""
        ends: list[float] = []
        for _, after, ms in self.capture.nodes:
            ends.append(ms + max((ends[n] for n in after), default=0.0))
        parallel = max(ends, default=0.0) < sum(ms for *_, ms in self.capture.nodes)
        return max(ends, default=0.0) * (side_by_side if parallel else 1.0)
