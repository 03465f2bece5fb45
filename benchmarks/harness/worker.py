"""Work in a process of its own, asked line by line: clean memory figures, one timed at a time.

The parent names a function `module:name` and its arguments. The child calls it, which may take as
long as loading does, and gets back a function that answers messages. Each line either way is one
JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.memory import peak_rss_nbytes
from engines.errors import FaceDiffuserError, ProviderUnavailableError

Message = Mapping[str, Any]
Answer = Callable[[Message], dict[str, Any]]

# Whatever a library calls its threads, it gets the same number.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_QUIET = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}


class WorkerError(FaceDiffuserError):
    """A worker process failed; carries its reason."""


class Worker:
    """The parent's side. started: what the child said when it was ready."""

    def __init__(
        self,
        function: Callable[..., Answer] | str,
        arguments: Message,
        *,
        threads: int | None = None,
    ) -> None:
        """Raises WorkerError, or ProviderUnavailableError where the child raised that."""
        name = function if isinstance(function, str) else path_of(function)
        self.name = name
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | _QUIET
        if threads is not None:
            environment |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
        command = [
            sys.executable,
            "-m",
            "benchmarks.harness.worker",
            name,
            json.dumps(dict(arguments)),
        ]
        started = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            self.started = self._read()
        except BaseException:
            self.close()
            raise
        self.started["start_s"] = time.perf_counter() - started

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and wait for its answer; raises WorkerError with the child's reason."""
        self.send(**message)
        return self._read()

    def send(self, **message: Any) -> None:
        """Send a message; `receive` gets its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        return self._read()

    def close(self) -> None:
        """End the child; the memory it held is free afterwards."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise WorkerError(f"{self.name} ended with exit code {code}; its reason stands above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = ProviderUnavailableError if answer["skip"] else WorkerError
            raise kind(f"{self.name}: {answer['error']}")
        return answer


def path_of(function: Callable[..., Answer]) -> str:
    """How a child process finds a function."""
    return f"{function.__module__}:{function.__qualname__}"


def serve(name: str, arguments: Message) -> None:
    """The child's side: build, say so, answer until the parent closes the pipe."""
    # Libraries print; the pipe to the parent carries answers alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        pipe.write(json.dumps(answer | {"peak_rss_nbytes": peak_rss_nbytes()}) + "\n")
        pipe.flush()

    try:
        module, _, function = name.partition(":")
        started = time.perf_counter()
        build: Callable[..., Answer] = getattr(import_module(module), function)
        imported = time.perf_counter()
        answer = build(**arguments)
        reply({"import_s": imported - started, "load_s": time.perf_counter() - imported})
        for line in sys.stdin:
            reply(answer(json.loads(line)))
    except (FaceDiffuserError, ImportError, MemoryError) as error:
        skip = isinstance(error, ProviderUnavailableError | ImportError)
        reply({"error": f"{type(error).__name__}: {error}", "skip": skip})


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
