"""Running the tests of one broken module, in a process that has imported all libraries already."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path

from tests.mutants.sample import Settings

_LOG = "mutants.log"
_NO_TESTS = 5  # pytest's exit status
_LONGEST_S = 1800.0  # for tests of code that is whole
_SLOWER = 3  # times what they took before: a machine may have other work
_ARGUMENTS = ("-x", "-q", "-n", "0", "-o", "addopts=", "-p", "no:cacheprovider",
              "-W", "ignore::pytest.PytestAssertRewriteWarning", "-m",
              "not gpu and not tensorrt and not weights and not slow")  # fmt: skip


class Outcome(StrEnum):
    """Of a mutant. A test that hangs notices it too, unless the machine had other work."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "SURVIVED"


class SelectionError(Exception):
    """There are no tests for a module, or they fail without any change."""


class Runner:
    """A copy of the repository whose modules are broken one at a time."""

    def __init__(self, copy: Path, settings: Settings, bundle: str | None) -> None:
        self._copy = copy
        self._settings = settings
        self._bundle = bundle
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["TRITON_INTERPRET"] = "1"
        self._context = multiprocessing.get_context("fork")
        for name in settings.preload:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self._seconds: dict[str, float] = {}  # of tests that pass on code that is whole

    def outcome(self, module: Path, code: str) -> Outcome:
        """What the tests do with this code in a module's place."""
        tests = self._settings.tests_of(module)
        for each in tests:
            if each not in self._seconds:
                self._seconds[each] = self._seconds_of(each, module)
        limit_s = self._settings.timeout_s + _SLOWER * sum(self._seconds[each] for each in tests)
        path = self._copy / module
        before = path.read_bytes()
        path.write_text(code)
        try:
            status = self._status(tests, module, limit_s)
        finally:
            path.write_bytes(before)
        if status is None:
            return Outcome.TIMED_OUT
        return Outcome.SURVIVED if status == 0 else Outcome.KILLED

    def _seconds_of(self, tests: str, module: Path) -> float:
        """How long they take on code that is whole."""
        start = time.monotonic()
        if self._status([tests], module, _LONGEST_S) != 0:
            log = (self._copy / _LOG).read_text()[-2000:]
            raise SelectionError(f"{tests} fails as it is: {log}")
        return time.monotonic() - start

    def _status(self, tests: list[str], module: Path, limit_s: float) -> int | None:
        """pytest's exit status; None for what had to be ended."""
        built = self._bundle if module.parts[0] != "export" else None
        process = self._context.Process(target=_run, args=(self._copy, tests, built))
        process.start()
        process.join(limit_s)
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            return None
        if process.exitcode == _NO_TESTS:
            raise SelectionError(f"no test is selected for {module}: {' '.join(tests)}")
        return process.exitcode


def _run(copy: Path, tests: list[str], bundle: str | None) -> None:
    """In a process of its own: forget the repository's modules, take the copy's."""
    os.setsid()
    # What starts this in the background may have it ignored, and tests interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(copy)
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]
    sys.path[:] = [str(copy), *(each for each in sys.path if each not in ("", str(Path.cwd())))]
    if bundle is not None:
        os.environ["FACE_DIFFUSER_GOLDEN_BUNDLE"] = bundle
    import pytest

    with (copy / _LOG).open("w") as log, contextlib.redirect_stdout(log):
        os.dup2(log.fileno(), 2)
        status = pytest.main([*_ARGUMENTS, *tests])
    os._exit(int(status))


def _is_ours(name: str) -> bool:
    ours = ("engines", "export", "kernels", "runtime", "face_diffuser", "benchmarks", "mini")
    return name.partition(".")[0] in (*ours, "examples", "tests", "build_backend")
