"""What all command lines share: exit codes, the reason on the last line of stderr, --json."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engines.errors import FaceDiffuserError

DONE, FAILED = 0, 1


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that what is open is closed."""


def run_command(
    command: Callable[[], dict[str, Any]], *, as_json: bool, resumes: bool = True
) -> int:
    """Run a command and turn its outcome into an exit code.

    The command returns what --json prints. Errors on purpose, a full disk, Ctrl-C and SIGTERM exit
    with 1 and their reason on the last line of stderr; anything else is a defect and shows its
    traceback. resumes: whether the same command goes on where it was stopped.
    """
    _print_anything()
    with _raised_on_sigterm():
        return _run(command, as_json=as_json, resumes=resumes)


def _run(command: Callable[[], dict[str, Any]], *, as_json: bool, resumes: bool) -> int:
    again = "the same command resumes" if resumes else "nothing was written"
    try:
        if as_json and sys.stdout is None:
            raise FaceDiffuserError("--json prints on stdout, which is closed")
        outcome = command()
    except FaceDiffuserError as error:
        return _failed(type(error).__name__, error.reason, error.fix, as_json=as_json)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        hint = "; free some space and run the same command again" if full else ""
        hint += ", it resumes" if full and resumes else ""
        return _failed(type(error).__name__, f"{error}{hint}", as_json=as_json)
    except KeyboardInterrupt:
        return _failed("KeyboardInterrupt", f"interrupted; {again}", as_json=as_json)
    except _Terminated:
        return _failed("Terminated", f"stopped by SIGTERM; {again}", as_json=as_json)
    if as_json:
        try:
            told(json.dumps(outcome))
        except FaceDiffuserError as error:
            return _failed(type(error).__name__, error.reason, as_json=False)
    return DONE


def told(text: str) -> None:
    """Print what a finished command has to say; raises FaceDiffuserError where nobody can hear it.

    What was done stays done: it is no reason to do it again.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # Else the interpreter tries once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise FaceDiffuserError(
            f"all was done, but standard output cannot be written ({error.strerror})"
        ) from error


def _print_anything() -> None:
    """Let no character of a path stop a print, whatever a terminal's encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _raised_on_sigterm() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed(kind: str, reason: str, fix: str | None = None, *, as_json: bool) -> int:
    if as_json and sys.stdout is not None:
        print(json.dumps({"error": kind, "reason": reason, "fix": fix}))
    told = reason if fix is None else f"{reason}: {fix}"
    print(" ".join(told.split()), file=sys.stderr)
    return FAILED
