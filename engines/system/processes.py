"""Work in a process of its own: how every child of this toolkit is started, heard and ended.

A child is a module run with `python -m`. It finds the packages that its parent finds, in the same
order, whatever folder it is started in. One that is asked or that reports on the way speaks JSON,
one document a line; whatever libraries print there goes elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended.

    code: its exit code, negative for a signal, None where it was stopped at its time limit.
    printed: its stdout, where that was kept. last_words: the last line of its stderr, or "".
    """

    code: int | None
    printed: str
    last_words: str


def module_command(module: str, *words: object) -> list[str]:
    """What starts a module, by its full name, as a program."""
    # -P: the working folder is no place to look for packages unless the parent looks there.
    return [sys.executable, "-P", "-m", module, *map(str, words)]


def child_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This process's environment, its module search path included.

    changes: set these variables; None removes one.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
    }
    for name, value in (changes or {}).items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return environment


def run_module(
    module: str,
    *words: object,
    environment: Mapping[str, str | None] | None = None,
    limit_s: float | None = None,
    keep_output: bool = True,
) -> Ended:
    """Run a module to its end, or to the time limit.

    environment: as for child_environment. keep_output: otherwise its stdout is this process's.
    """
    try:
        finished = subprocess.run(
            module_command(module, *words),
            env=child_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if keep_output else None,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ended(code=None, printed="", last_words=f"not done after {limit_s:.0f} s")
    return Ended(
        code=finished.returncode,
        printed=finished.stdout or "",
        last_words=_last_line(finished.stderr),
    )


class Child:
    """A module that runs while this process speaks with it; a context manager that ends it."""

    def __init__(
        self,
        module: str,
        *words: object,
        environment: Mapping[str, str | None] | None = None,
        own_session: bool = False,
        keep_stderr: bool = False,
    ) -> None:
        """Start it. own_session: Ctrl-C reaches the parent alone. keep_stderr: for last_words."""
        # A file, not a pipe: a child that says much must not wait for somebody to read it.
        self._stderr = (
            tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed by close()
            if keep_stderr
            else None
        )
        self._process = subprocess.Popen(
            module_command(module, *words),
            env=child_environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=own_session,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, document: Mapping[str, Any]) -> bool:
        """Send one document; False if the child hears no more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """Wait for one document; None when the child says no more."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        document: dict[str, Any] | None = json.loads(line) if line else None
        return document

    def ended(self) -> Ended:
        """Wait for its end."""
        code = self._process.wait()
        last_words = ""
        if self._stderr is not None:
            self._stderr.seek(0)
            last_words = _last_line(self._stderr.read())
        return Ended(code=code, printed="", last_words=last_words)

    def close(self, grace_s: float = 20.0) -> None:
        """Tell the child by the end of its stdin; kill it if it has not ended in so long."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ParentPipe:
    """The child's side: documents to the parent, from any thread, on what was stdout.

    Whatever else is printed from here on goes to the file descriptor `prints`, by default stderr.
    """

    def __init__(self, prints: int = 2) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w")
        self._lock = threading.Lock()
        os.dup2(prints, 1)

    def send(self, document: Mapping[str, Any]) -> None:
        with self._lock:
            self._stream.write(json.dumps(document) + "\n")
            self._stream.flush()


def _last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "")
