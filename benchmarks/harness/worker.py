"""Work in a process of its own, asked question by question: clean memory figures, one at a time.

The parent names a function and its arguments. The child calls it, which may take as long as loading
does, and gets back a function that answers questions; a question is that function's own arguments.
Arguments and answers are frozen dataclasses or what else JSON can say.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Self, TypeVar, get_type_hints

from benchmarks.harness.imports import missing_package
from benchmarks.harness.memory import peak_rss_nbytes
from engines.bundle.records import document_of, read
from engines.errors import FaceDiffuserError, ProviderUnavailableError
from engines.system.processes import Child, ParentPipe

Answer = TypeVar("Answer")

# Whatever a library calls its threads, it gets the same number.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_QUIET = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}


class WorkerError(FaceDiffuserError):
    """A worker process failed; carries its reason."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """What a worker took to be ready. peak_rss_nbytes: the most it ever had resident."""

    import_s: float
    load_s: float
    peak_rss_nbytes: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a worker answers no more. skip: this machine lacks what it takes."""

    error: str
    skip: bool


class Worker(Generic[Answer]):
    """The parent's side. started: what the child said when it was ready."""

    def __init__(
        self,
        function: Callable[..., Callable[..., Answer]] | str,
        answer: type[Answer],
        arguments: Mapping[str, object],
        *,
        threads: int | None = None,
    ) -> None:
        """Start it; answer: what its function answers.

        Raises WorkerError, or ProviderUnavailableError where the child raised that.
        """
        self.name = function if isinstance(function, str) else path_of(function)
        self._answer = answer
        cores = {} if threads is None else dict.fromkeys(_THREAD_VARIABLES, str(threads))
        words = (self.name, json.dumps(document_of(arguments)))
        self._child = Child(__name__, *words, environment=_QUIET | cores)
        try:
            self.started = read(Started, self._received())
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    def ask(self, **question: object) -> Answer:
        """Send a question and wait for its answer; raises WorkerError with the child's reason."""
        self.send(**question)
        return self.receive()

    def send(self, **question: object) -> None:
        """Send a question; `receive` gets its answer."""
        self._child.send(question)

    def receive(self) -> Answer:
        return read(self._answer, self._received())

    def close(self) -> None:
        """End the child; the memory it held is free afterwards."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _received(self) -> dict[str, Any]:
        document = self._child.receive()
        if document is None:
            code = self._child.ended().code
            raise WorkerError(f"{self.name} ended with exit code {code}; its reason stands above")
        if "error" in document:
            failure = read(Failure, document)
            kind = ProviderUnavailableError if failure.skip else WorkerError
            raise kind(f"{self.name}: {failure.error}")
        return document


def path_of(function: Callable[..., Any]) -> str:
    """How a child process finds a function."""
    return f"{function.__module__}:{function.__qualname__}"


def serve(name: str, arguments: Mapping[str, Any]) -> None:
    """The child's side: build, say so, answer until the parent closes the pipe."""
    # Libraries print; the pipe to the parent carries answers alone.
    pipe = ParentPipe()
    try:
        module, _, function = name.partition(":")
        started = time.perf_counter()
        build: Callable[..., Callable[..., object]] = getattr(import_module(module), function)
        imported = time.perf_counter()
        hints = get_type_hints(build)
        answer = build(**{key: read(hints.get(key, Any), arguments[key]) for key in arguments})
        ready = Started(
            import_s=imported - started,
            load_s=time.perf_counter() - imported,
            peak_rss_nbytes=peak_rss_nbytes(),
        )
        pipe.send(document_of(ready))
        for line in sys.stdin:
            pipe.send(document_of(answer(**json.loads(line))))
    except (FaceDiffuserError, ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and missing_package(error) is None:
            raise
        skip = isinstance(error, ProviderUnavailableError | ImportError)
        failure = Failure(error=f"{type(error).__name__}: {error}", skip=skip)
        pipe.send(document_of(failure))


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
