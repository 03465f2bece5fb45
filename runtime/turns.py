"""Whose turn it is with an open bundle: calls of all threads come one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from engines.errors import CancelledError, FaceDiffuserError

# How often a call that waits for its turn looks at its cancel token.
_WAIT_S = 0.05


class CancelToken(Protocol):
    """What ends a drawing from any thread: a threading.Event, or anything that has its is_set."""

    def is_set(self) -> bool:
        """Whether the drawing is to end after its step."""


class StopOf:
    """A token of one's own that is also set where the caller's is."""

    def __init__(self, cancel: CancelToken | None) -> None:
        self._cancel = cancel
        self._own = threading.Event()

    def set(self) -> None:
        self._own.set()

    def is_set(self) -> bool:
        return self._own.is_set() or (self._cancel is not None and self._cancel.is_set())


class Turns:
    """One call at a time, in whichever threads they are made; a call may make another within it.

    close_all: closes what the calls share. It is called once, when no call is under way any more.
    """

    def __init__(self, close_all: Callable[[], None]) -> None:
        self._close_all = close_all
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        self._all_closed = False

    @contextmanager
    def turn(self, cancel: CancelToken | None = None) -> Iterator[int]:
        """Wait for the turn and hold it; yields 1, or more for a call within a call.

        Raises CancelledError if the token is set while waiting, FaceDiffuserError once closed.
        """
        self._wait(cancel)
        try:
            self.check(cancel)
            self._depth += 1
            try:
                yield self._depth
            finally:
                self._depth -= 1
        finally:
            try:
                self._close_if_last()
            finally:
                self._lock.release()

    def check(self, cancel: CancelToken | None, when: str = "before the first step") -> None:
        """Raise if the call that is under way has no reason to go on."""
        if self._closed:
            raise FaceDiffuserError("this FaceDiffuser is closed; open the bundle again")
        if cancel is not None and cancel.is_set():
            raise CancelledError(f"cancelled {when}")

    def close(self) -> None:
        """Close, once the call that is under way has ended, which it does after its step.

        From within a call (in on_step) this returns at once, and the end of that call closes.
        """
        self._closed = True
        with self._lock:
            self._close_if_last()

    def _wait(self, cancel: CancelToken | None) -> None:
        if cancel is None:
            self._lock.acquire()
            return
        while not self._lock.acquire(timeout=_WAIT_S):
            self.check(cancel, "while it waited for its turn")

    def _close_if_last(self) -> None:
        if self._closed and not self._depth and not self._all_closed:
            self._all_closed = True
            self._close_all()
