"""TensorRT, either library: the one place that imports it, checks it, and looks at its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import distributions
from typing import Any, Protocol, TypeVar, cast

from engines import commands
from engines.errors import FaceDiffuserError, NotInstalledError, ProviderUnavailableError
from engines.tensorrt import vendor, vendor_rtx
from engines.tensorrt.libraries import TENSORRT, TENSORRT_RTX, Library

_MEMORY_WORDS = (
    "outofmemory", "out of memory", "insufficient memory", "cudaerrormemory",
    "within workspace limit",
)  # fmt: skip
# Follows every other error where there is no driver, and is the reason of none.
_TRAILER = "catchCudaError"

Value = TypeVar("Value")
# Receives each message of TensorRT with its severity's name: ERROR, WARNING, INFO, ...
LogSink = Callable[[str, str], None]


@dataclass(frozen=True)
class ErrorLog:
    """What TensorRT said at severity ERROR or worse."""

    errors: list[str] = field(default_factory=list)

    def hear(self, severity: str, message: str) -> None:
        """A LogSink."""
        if "ERROR" in severity and _TRAILER not in message:
            # In one line, as reasons are told.
            self.errors.append(" ".join(message.split()))

    def reason(self) -> str:
        """The first error: what comes after it follows from it."""
        return self.errors[0] if self.errors else "no reason given"

    def tells_of_memory(self) -> bool:
        return any(word in error.lower() for error in self.errors for word in _MEMORY_WORDS)


class TensorRtError(FaceDiffuserError):
    """TensorRT answered False or nothing where it had to succeed; carries its own last words."""


class TensorRt(Protocol):
    """The module of either library, as far as it is used here."""

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
    @property
    def LayerType(self) -> vendor.LayerType: ...
    # Base classes: a logger and a progress monitor are made by deriving from them.
    @property
    def ILogger(self) -> Any: ...
    @property
    def IProgressMonitor(self) -> Any: ...
    def Builder(self, logger: Any) -> vendor.Builder: ...
    def OnnxParser(self, network: Any, logger: Any) -> vendor.OnnxParser: ...
    def Runtime(self, logger: Any) -> vendor.Runtime: ...
    def Dims(self, shape: Sequence[int]) -> Any: ...


class TensorRtRtx(TensorRt, Protocol):
    """What the module of TensorRT for RTX has besides."""

    @property
    def BuilderFlag(self) -> vendor_rtx.RtxBuilderFlag: ...
    @property
    def LayerType(self) -> vendor_rtx.RtxLayerType: ...
    @property
    def ComputeCapability(self) -> Any: ...
    # A class: what `get_layer` gives becomes one of these by assignment.
    @property
    def IAttentionInputLayer(self) -> Any: ...
    @property
    def EngineValidity(self) -> vendor_rtx.EngineValidity: ...
    @property
    def DynamicShapesKernelSpecializationStrategy(
        self,
    ) -> vendor_rtx.DynamicShapesKernelSpecializationStrategy: ...
    @property
    def CudaGraphStrategy(self) -> vendor_rtx.CudaGraphStrategy: ...


def load(library: Library) -> TensorRt:
    """Import a library.

    Raises NotInstalledError, or ProviderUnavailableError if its libraries do not load, wheels for
    two CUDA versions are mixed, or its version is another than this toolkit supports.
    """
    check_wheels(installed_names(), library)
    again = f'pip install --force-reinstall "{library.requirement}"'
    try:
        module = import_module(library.module)
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            f"{library.title} is not installed ({error}); install it with",
            fix=commands.installed(library.extra),
        ) from error
    except (ImportError, OSError) as error:
        raise ProviderUnavailableError(
            f"{library.title} is installed, but its libraries do not load ({error}); install it "
            "again with",
            fix=again,
        ) from error
    found = getattr(module, "__version__", "unknown")
    if not library.oldest <= version_of(found) < library.below:
        raise ProviderUnavailableError(
            f"this toolkit supports {library.title} {library.versions}, found {found}; install "
            "another with",
            fix=commands.installed(library.extra),
        )
    return cast(TensorRt, module)


def installed_names() -> list[str]:
    """Names of all installed distributions."""
    return [distribution.metadata["Name"] or "" for distribution in distributions()]


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of a version such as 11.4.0.106; (0, 0) where there are none."""
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return (0, 0)
    return int(parts[0]), int(parts[1])


def check_wheels(installed: Sequence[str], library: Library) -> None:
    """Raise ProviderUnavailableError if a library's wheels of two CUDA versions are installed."""
    names = wheels_of(library, installed)
    by_cuda = {cuda: sorted(n for n in names if f"_{cuda}" in n) for cuda in ("cu12", "cu13")}
    if all(by_cuda.values()):
        mixed = [name for group in by_cuda.values() for name in group]
        raise ProviderUnavailableError(
            f"{library.title} wheels of two CUDA versions are installed side by side "
            f"({', '.join(mixed)}) and overwrite each other's files; keep one",
            fix=f"pip uninstall -y {' '.join([library.wheels, *mixed])} && "
            f"{commands.installed(library.extra)}",
        )


def wheels_of(library: Library, installed: Sequence[str]) -> set[str]:
    """A library's own distributions: the name of one is the beginning of the other's."""
    names = {name.lower().replace("-", "_") for name in installed}
    ours = {name for name in names if name.startswith(library.wheels)}
    if library is TENSORRT:
        ours -= {name for name in ours if name.startswith(TENSORRT_RTX.wheels)}
    return ours


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


def logger(
    trt: TensorRt, sink: LogSink, verbose: Callable[[str], None] | None = None
) -> vendor.ILogger:
    """A TensorRT logger that hands each message to `sink`; keep it alive as long as its users.

    Verbose messages, of which a build has more than anybody reads, go to `verbose` alone.
    """
    base = trt.ILogger

    class _Logger(base):  # type: ignore[misc, valid-type]  # the vendor's class is known at run time
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity != base.VERBOSE:
                sink(getattr(severity, "name", str(severity)), msg)
            elif verbose is not None:
                verbose(msg)

    return cast(vendor.ILogger, _Logger())
