"""Stands where TensorRT's own package would: see tests/doubles/tensorrt_build.py."""

from tests.doubles.tensorrt_build import (
    Builder,
    Dims,
    IBuilderConfig,
    ILayer,
    INetworkDefinition,
    IOptimizationProfile,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
)
from tests.doubles.tensorrt_execution import (
    EngineInspector,
    ICudaEngine,
    IExecutionContext,
    Runtime,
)
from tests.doubles.tensorrt_names import (
    BuilderFlag,
    DataType,
    ExecutionContextAllocationStrategy,
    IHostMemory,
    ILogger,
    LayerInformationFormat,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    settings,
)

__version__ = settings().version

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "Dims",
    "EngineInspector",
    "ExecutionContextAllocationStrategy",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "__version__",
]
