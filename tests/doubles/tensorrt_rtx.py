"""The run side of TensorRT for RTX, where it differs from TensorRT's: see tensorrt_execution.

There is no build side: the real library builds wherever its wheel installs. What is here was typed
against its real surface and never held against a card.
"""

from __future__ import annotations

from typing import Any

from tests.doubles import tensorrt_execution
from tests.doubles.tensorrt_names import (
    MAGIC,
    DataType,
    ExecutionContextAllocationStrategy,
    IHostMemory,
    ILogger,
    LayerInformationFormat,
    Member,
    say,
    unpacked,
)

__version__ = "1.7.1.116"
__all__ = [
    "CudaGraphStrategy", "DataType", "DynamicShapesKernelSpecializationStrategy",
    "EngineValidity", "ExecutionContextAllocationStrategy", "ICudaEngine",
    "IExecutionContext", "IHostMemory", "ILogger", "IRuntimeCache", "IRuntimeConfig",
    "LayerInformationFormat", "Runtime",
]  # fmt: skip

_COMPILED, _RUN = b"compiled for ", b" as it ran"
# Contexts that were made, each with what it found compiled; tests clear it.
found_compiled: list[bytes] = []
# Whether streams may be captured; tests change it.
capturable = [True]
# Whether contexts come to be; tests change it.
compiles = [True]


class CudaGraphStrategy(Member):
    DISABLED = "DISABLED"
    WHOLE_GRAPH_CAPTURE = "WHOLE_GRAPH_CAPTURE"


class DynamicShapesKernelSpecializationStrategy(Member):
    LAZY = "LAZY"
    EAGER = "EAGER"
    NONE = "NONE"


class EngineValidity(Member):
    INVALID = "INVALID"
    SUBOPTIMAL = "SUBOPTIMAL"
    VALID = "VALID"


class IRuntimeCache:
    """Kernels by the name of the plan's file: of its context, and more once that has run."""

    def __init__(self, file: str) -> None:
        self._file, self._content = file, b""

    def deserialize(self, blob: bytes) -> bool:
        taken = blob.startswith(_COMPILED)
        self._content = blob if taken else b""
        return taken

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)

    def _compile(self) -> None:
        found_compiled.append(self._content)
        self._content = self._content or _COMPILED + self._file.encode()

    def _run(self) -> None:
        if not self._content.endswith(_RUN):
            self._content += _RUN


class IRuntimeConfig:
    """How a context runs."""

    def __init__(self, file: str) -> None:
        self.cuda_graph_strategy: Any = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy: Any = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )
        self._file = file
        self._strategy: Any = ExecutionContextAllocationStrategy.STATIC
        self._cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self._file)

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


class IExecutionContext(tensorrt_execution.IExecutionContext):
    """Compiles what its cache has not."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__(engine, config._strategy)
        self._cache = config._cache
        if self._cache is not None:
            self._cache._compile()

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._cache is not None:
            self._cache._run()
        return super().execute_async_v3(stream_handle)

    def is_stream_capturable(self, stream: int) -> bool:
        return capturable[0]


class ICudaEngine(tensorrt_execution.ICudaEngine):
    """A plan, whose contexts take a configuration."""

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig(self._header["file"])

    def create_execution_context(self, config: IRuntimeConfig) -> IExecutionContext | None:
        eager = DynamicShapesKernelSpecializationStrategy.EAGER
        assert config.dynamic_shapes_kernel_specialization_strategy is eager
        assert config.cuda_graph_strategy is CudaGraphStrategy.DISABLED
        if compiles[0]:
            return IExecutionContext(self, config)
        say(self._logger, ILogger.ERROR, "the compiler found no space on the device")
        return None


class Runtime:
    """Exists without a GPU, as the real one does."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        content = unpacked(serialized_engine)
        if content is None or content[0]["version"] != __version__:
            say(self._logger, ILogger.ERROR, "not a plan of this release")
            return None
        return ICudaEngine(*content, self._logger)

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        """Of a header alone: what follows it may be damaged."""
        if buffer.startswith(MAGIC):
            return EngineValidity.VALID, 0
        return EngineValidity.INVALID, 32
