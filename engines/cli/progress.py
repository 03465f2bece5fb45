"""Progress of builds: a bar with the time left on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TextIO

_BAR = 24
# A bar moves at most this often; a log gets a line when this share of the build is done.
_REFRESH_S = 0.1
_LOG_SHARE = 0.05
# The same where only the time is told: after a second, then this often.
_LOG_S = 10.0


@dataclass(frozen=True, kw_only=True)
class PhaseEvent:
    """One thing that TensorRT says of its progress; a tick says only that time passes.

    number: how many steps a phase has that starts; which step is done, from 0.
    """

    kind: Literal["start", "step", "finish", "tick"]
    phase: str = ""
    parent: str | None = None
    number: int = 0


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
    active: bool = True


@dataclass
class Phases:
    """TensorRT's tree of phases, folded into one number.

    A step of a phase may hold phases of its own, so a phase is done as far as its finished steps
    and the furthest of its running phases say. The number goes back only when an outermost phase
    ends and another begins, with a clock of its own.
    """

    _phases: dict[str, _Phase] = field(default_factory=dict)
    _share: float = 0.0
    name: str = ""
    started: float = field(default_factory=time.monotonic)

    def take(self, event: PhaseEvent) -> None:
        """Note an event of a worker."""
        phase, number = event.phase, event.number
        match event.kind:
            case "start":
                if not any(each.active for each in self._phases.values()):
                    self._phases, self._share, self.started = {}, 0.0, time.monotonic()
                self._phases[phase] = _Phase(event.parent, max(1, number))
                self.name = phase
            case "step" if phase in self._phases:
                self._phases[phase].done = max(self._phases[phase].done, number + 1)
            case "finish" if phase in self._phases:
                self._phases[phase].active = False
                self._phases[phase].done = self._phases[phase].steps

    def share(self) -> float:
        """How much of the current outermost phase is done, from 0 to 1."""
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        if roots:
            self._share = max(self._share, self._share_of(roots[0]))
        return self._share

    def _share_of(self, name: str) -> float:
        phase = self._phases[name]
        inner = [
            self._share_of(child)
            for child, other in self._phases.items()
            if other.parent == name and other.active and child != name
        ]
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.steps)


class Display(Protocol):
    """Where a build says what it does."""

    def say(self, text: str) -> None:
        """A sentence for people."""
        ...

    def start(self, name: str, number: int, of: int, *, shares: bool = True) -> None:
        """A plan's build begins. shares: whether its events tell how far it is, or only time."""
        ...

    def event(self, event: PhaseEvent) -> None:
        """A worker's event."""
        ...

    def end(self) -> None:
        """Nothing more will move; leaves the stream at the start of a line."""
        ...


class TerminalDisplay:
    """One line that is drawn over: what is built, how far it is, how long it will take."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._title, self._shares, self._started = "", True, time.monotonic()
        self._phases = Phases()
        self._drawn = 0.0

    def say(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}\n")
        self._stream.flush()

    def start(self, name: str, number: int, of: int, *, shares: bool = True) -> None:
        self._title, self._phases = f"[{number}/{of}] {name}", Phases()
        self._shares, self._started = shares, time.monotonic()

    def event(self, event: PhaseEvent) -> None:
        self._phases.take(event)
        now = time.monotonic()
        if now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        if not self._shares:
            self._draw(f"{self._title} {minutes(now - self._started)} {self._phases.name}")
            return
        share = self._phases.share()
        bar = "#" * int(_BAR * share)
        left = time_left(share, now - self._phases.started)
        self._draw(f"{self._title} {bar:<{_BAR}} {share:4.0%} {left} {self._phases.name}")

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{text[:width]}")
        self._stream.flush()

    def end(self) -> None:
        self._stream.write("\r\x1b[K")
        self._stream.flush()


class JsonDisplay:
    """One JSON object a line: sentences, and each twentieth of a build or ten seconds of it.

    say: takes the sentences instead.
    """

    def __init__(self, stream: TextIO, say: Callable[[str], None] | None = None) -> None:
        self._stream, self._say = stream, say
        self._name = ""
        self._phases = Phases()
        self._told, self._shares, self._started = 0.0, True, time.monotonic()

    def say(self, text: str) -> None:
        if self._say is None:
            self._write({"event": "say", "text": text})
        else:
            self._say(text)

    def start(self, name: str, number: int, of: int, *, shares: bool = True) -> None:
        self._name, self._phases, self._told = name, Phases(), 0.0
        self._shares, self._started = shares, time.monotonic()
        self._write({"event": "start", "plan": name, "number": number, "of": of})

    def event(self, event: PhaseEvent) -> None:
        self._phases.take(event)
        if not self._shares:
            self._tell_time(event)
            return
        share = self._phases.share()
        if 0 <= share - self._told < _LOG_SHARE or not share:
            return
        self._told = share
        elapsed_s = time.monotonic() - self._phases.started
        left_s = elapsed_s * (1 - share) / share
        self._write(
            {
                "event": "progress",
                "plan": self._name,
                "phase": self._phases.name,
                "share": round(share, 3),
                "elapsed_s": round(elapsed_s, 1),
                "left_s": round(left_s, 1),
            }
        )

    def _tell_time(self, event: PhaseEvent) -> None:
        """A line now and then: the phases that a second sees many of say nothing to a reader."""
        elapsed_s = time.monotonic() - self._started
        if event.kind != "tick" or (self._told and elapsed_s - self._told < _LOG_S):
            return
        self._told = elapsed_s
        self._write(
            {
                "event": "progress",
                "plan": self._name,
                "phase": self._phases.name,
                "elapsed_s": round(elapsed_s, 1),
            }
        )

    def end(self) -> None:
        """Every line is whole already."""

    def _write(self, document: dict[str, Any]) -> None:
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()


def display_on(stream: TextIO | None = None) -> Display:
    """What suits a stream, by default stderr."""
    stream = sys.stderr if stream is None else stream
    return TerminalDisplay(stream) if stream.isatty() else JsonDisplay(stream)


def time_left(share: float, elapsed_s: float) -> str:
    """The time left if the rest goes as fast as what is done; nothing to say at the very start."""
    if share < 0.01:
        return ""
    return f"{minutes(elapsed_s * (1 - share) / share)} left"


def minutes(seconds: float) -> str:
    """A time as people read it."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest:02} s" if whole else f"{rest} s"
