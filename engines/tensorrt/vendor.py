"""The part of TensorRT's Python API that is used here, as Protocols under the vendor's own names.

What is not listed here is not called: mypy sees to it, and the contract test looks every name and
argument up in the real bindings of TensorRT 10 and 11 and of TensorRT for RTX. Vendor objects given
as arguments are `Any`, because the vendor's classes take only each other. An enum's integers differ
from version to version: members are used by name and never stored.
"""

from __future__ import annotations

from typing import Any, Protocol


class BuilderFlag(Protocol):
    """What a build may do."""

    TF32: Any


class NetworkDefinitionCreationFlag(Protocol):
    """How a network is made; STRONGLY_TYPED is always on from TensorRT 11."""

    STRONGLY_TYPED: Any


class MemoryPoolType(Protocol):
    """What a memory limit limits."""

    WORKSPACE: Any


class ProfilingVerbosity(Protocol):
    """How much of a layer the inspector tells."""

    DETAILED: Any


class LayerInformationFormat(Protocol):
    """How the inspector writes."""

    JSON: Any


class ExecutionContextAllocationStrategy(Protocol):
    """Who owns a context's activation memory."""

    USER_MANAGED: Any


class DataType(Protocol):
    """Element types that the contract knows."""

    FLOAT: Any
    HALF: Any
    INT32: Any
    BOOL: Any


class LayerType(Protocol):
    """What a layer of a network is."""

    CONSTANT: Any


class ILogger(Protocol):
    """The base class of loggers: its `log` receives every message."""

    VERBOSE: Any

    def log(self, severity: Any, msg: str) -> None: ...


class IProgressMonitor(Protocol):
    """The base class of progress monitors; called from several threads."""

    def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...
    def phase_finish(self, phase_name: str) -> None: ...


class IHostMemory(Protocol):
    """Bytes of TensorRT's own; it offers the buffer protocol, so `bytes(memory)` copies them."""

    @property
    def nbytes(self) -> int: ...


class ITimingCache(Protocol):
    """How fast each kernel was on this GPU."""

    def serialize(self) -> IHostMemory: ...


class IOptimizationProfile(Protocol):
    """The range of shapes a plan takes."""

    # A false answer is an exception in Python: set_shape returns nothing.
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None: ...
    def __bool__(self) -> bool: ...


class INetworkDefinition(Protocol):
    """What is built."""

    @property
    def num_inputs(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    def get_input(self, index: int) -> ITensor: ...
    def get_output(self, index: int) -> ITensor: ...
    def get_layer(self, index: int) -> ILayer: ...


class ITensor(Protocol):
    """A tensor of a network."""

    shape: Any  # assigned to close the open sizes of an input

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> Any: ...


class ILayer(Protocol):
    """A layer of a network."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> Any: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def num_outputs(self) -> int: ...
    # There is none for an optional input that is not given.
    def get_input(self, index: int) -> ITensor | None: ...
    def get_output(self, index: int) -> ITensor: ...


class IBuilderConfig(Protocol):
    """How it is built."""

    builder_optimization_level: int
    max_aux_streams: int
    profiling_verbosity: Any
    progress_monitor: Any

    def clear_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def add_optimization_profile(self, profile: Any) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: Any, *, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache: ...


class Builder(Protocol):
    """Builds plans; TensorRT's exists only where there is a GPU."""

    def create_network(self, flags: int = 0) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None: ...


class ParserError(Protocol):
    """Why a node was not understood."""

    def desc(self) -> str: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """Fills a network from an ONNX model."""

    @property
    def num_errors(self) -> int: ...
    def parse_from_file(self, model: str) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...


class EngineInspector(Protocol):
    """Tells what an engine is made of."""

    execution_context: Any

    def get_engine_information(self, format: Any) -> str: ...


class IExecutionContext(Protocol):
    """An engine ready on one stream; not thread-safe."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...
    def infer_shapes(self) -> list[str]: ...
    def get_tensor_shape(self, name: str) -> Any: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def update_device_memory_size_for_shapes(self) -> int: ...
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    """A deserialized plan."""

    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    @property
    def device_memory_size_v2(self) -> int: ...
    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Any: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]: ...
    def create_execution_context(self, strategy: Any) -> IExecutionContext | None: ...
    def create_engine_inspector(self) -> EngineInspector: ...


class Runtime(Protocol):
    """Deserializes plans; TensorRT's exists only where there is a GPU."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...
