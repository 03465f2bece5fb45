"""How long the parts of a request take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Milliseconds by what they were spent on."""

    spent_ms: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent = (time.perf_counter() - start) * 1e3
        self.spent_ms[name] = self.spent_ms.get(name, 0.0) + spent

    def timings_ms(self, stages: Mapping[str, float]) -> dict[str, float]:
        total = (time.perf_counter() - self.started) * 1e3
        return self.spent_ms | dict(stages) | {"total": total}
