"""TensorRT: the one place that imports it, checks its version and looks at what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import distributions
from typing import Any, Protocol, TypeVar, cast

from engines import commands
from engines.errors import FaceDiffuserError, NotInstalledError, ProviderUnavailableError
from engines.tensorrt import vendor

OLDEST, BELOW = (10, 9), (12, 0)
_MEMORY_WORDS = ("outofmemory", "out of memory", "insufficient memory", "cudaerrormemory")

Value = TypeVar("Value")
# Receives each message of TensorRT with its severity's name: ERROR, WARNING, INFO, ...
LogSink = Callable[[str, str], None]


@dataclass(frozen=True)
class ErrorLog:
    """What TensorRT said at severity ERROR or worse."""

    errors: list[str] = field(default_factory=list)

    def hear(self, severity: str, message: str) -> None:
        """A LogSink."""
        if "ERROR" in severity:
            self.errors.append(message)

    def last_words(self) -> str:
        return self.errors[-1] if self.errors else "no reason given"

    def tells_of_memory(self) -> bool:
        return any(word in error.lower() for error in self.errors for word in _MEMORY_WORDS)


class TensorRtError(FaceDiffuserError):
    """TensorRT answered False or nothing where it had to succeed; carries its own last words."""


class TensorRt(Protocol):
    """The module `tensorrt`, as far as it is used here."""

    @property
    def __version__(self) -> str: ...
    @property
    def BuilderFlag(self) -> vendor.BuilderFlag: ...
    @property
    def NetworkDefinitionCreationFlag(self) -> vendor.NetworkDefinitionCreationFlag: ...
    @property
    def MemoryPoolType(self) -> vendor.MemoryPoolType: ...
    @property
    def ProfilingVerbosity(self) -> vendor.ProfilingVerbosity: ...
    @property
    def LayerInformationFormat(self) -> vendor.LayerInformationFormat: ...
    @property
    def ExecutionContextAllocationStrategy(self) -> vendor.ExecutionContextAllocationStrategy: ...
    @property
    def DataType(self) -> vendor.DataType: ...
    # Base classes: a logger and a progress monitor are made by deriving from them.
    @property
    def ILogger(self) -> Any: ...
    @property
    def IProgressMonitor(self) -> Any: ...
    def Builder(self, logger: Any) -> vendor.Builder: ...
    def OnnxParser(self, network: Any, logger: Any) -> vendor.OnnxParser: ...
    def Runtime(self, logger: Any) -> vendor.Runtime: ...
    def Dims(self, shape: Sequence[int]) -> Any: ...


def tensorrt() -> TensorRt:
    """Import TensorRT.

    Raises NotInstalledError, or ProviderUnavailableError if its libraries do not load, wheels for
    two CUDA versions are mixed, or its version is not from 10.9 to 11.x.
    """
    check_wheels([distribution.metadata["Name"] or "" for distribution in distributions()])
    try:
        module = import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            f"TensorRT is not installed ({error}); install it with",
            fix=commands.installed("tensorrt"),
        ) from error
    except (ImportError, OSError) as error:
        raise ProviderUnavailableError(
            f"TensorRT is installed, but its libraries do not load ({error}); install it again "
            "with",
            fix='pip install --force-reinstall "tensorrt>=10.9,<12"',
        ) from error
    found = getattr(module, "__version__", "unknown")
    if not OLDEST <= version_of(found) < BELOW:
        raise ProviderUnavailableError(
            f"this toolkit supports TensorRT 10.9 to 11.x, found {found}; install another with",
            fix=commands.installed("tensorrt"),
        )
    return cast(TensorRt, module)


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of a version such as 11.4.0.106; (0, 0) where there are none."""
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return (0, 0)
    return int(parts[0]), int(parts[1])


def check_wheels(installed: Sequence[str]) -> None:
    """Raise ProviderUnavailableError if TensorRT wheels of two CUDA versions are installed."""
    names = {name.lower().replace("-", "_") for name in installed}
    by_cuda = {
        cuda: sorted(n for n in names if n.startswith("tensorrt") and f"_{cuda}" in n)
        for cuda in ("cu12", "cu13")
    }
    if all(by_cuda.values()):
        mixed = [name for group in by_cuda.values() for name in group]
        raise ProviderUnavailableError(
            f"TensorRT wheels of two CUDA versions are installed side by side ({', '.join(mixed)}) "
            "and overwrite each other's files; keep one",
            fix=f"pip uninstall -y {' '.join(['tensorrt', *mixed])} && "
            f"{commands.installed('tensorrt')}",
        )


def accepted(answer: bool, what: str) -> None:  # noqa: FBT001  # the bool is what it is about
    """Look at a bool that TensorRT returned; raises TensorRtError naming what it refused."""
    if not answer:
        raise TensorRtError(f"TensorRT refused: {what}")


def given(value: Value | None, what: str) -> Value:
    """Look at an object that TensorRT returned; raises TensorRtError if there is none."""
    if value is None:
        raise TensorRtError(f"TensorRT returned nothing: {what}")
    return value


def bytes_of(memory: vendor.IHostMemory) -> bytes:
    """A copy of TensorRT's host memory, through the buffer protocol that its types do not show."""
    return bytes(cast(Any, memory))


def logger(trt: TensorRt, sink: LogSink) -> vendor.ILogger:
    """A TensorRT logger that hands each message to `sink`; keep it alive as long as its users.

    Verbose messages, of which a build has more than anybody reads, are dropped.
    """
    base = trt.ILogger

    class _Logger(base):  # type: ignore[misc, valid-type]  # the vendor's class is known at run time
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity != base.VERBOSE:
                sink(getattr(severity, "name", str(severity)), msg)

    return cast(vendor.ILogger, _Logger())
