"""What TensorRT for RTX has besides `engines.tensorrt.vendor`, as far as it is used here.

A class that both have is named Rtx and its own name.
"""

from __future__ import annotations

from typing import Any, Protocol

from engines.tensorrt import vendor


class RtxBuilderFlag(vendor.BuilderFlag, Protocol):
    """REQUIRE_USER_ALLOCATION: the plan allocates nothing itself, so that it can be captured."""

    REQUIRE_USER_ALLOCATION: Any


class RtxLayerType(vendor.LayerType, Protocol):
    """An Attention node is parsed into an input and an output layer."""

    ATTENTION_INPUT: Any
    ATTENTION_OUTPUT: Any


class IAttention(Protocol):
    """What an input and an output layer are the ends of."""

    decomposable: bool


class IAttentionInputLayer(Protocol):
    """The layer that queries, keys and values go into."""

    @property
    def attention(self) -> IAttention: ...


class EngineValidity(Protocol):
    """Whether a plan can be run here."""

    INVALID: Any


class DynamicShapesKernelSpecializationStrategy(Protocol):
    """When kernels are compiled for the shapes that are really used: EAGER is before they run."""

    EAGER: Any


class CudaGraphStrategy(Protocol):
    """Whether the library captures CUDA graphs of its own."""

    DISABLED: Any


class RtxBuilderConfig(vendor.IBuilderConfig, Protocol):
    """How a plan for RTX cards is built."""

    num_compute_capabilities: int

    def set_flag(self, flag: Any) -> None: ...
    def set_compute_capability(self, compute_capability: Any, index: int) -> bool: ...


class IRuntimeCache(Protocol):
    """Kernels that were compiled on this GPU."""

    def deserialize(self, blob: bytes) -> bool: ...
    def serialize(self) -> vendor.IHostMemory | None: ...


class IRuntimeConfig(Protocol):
    """How an execution context runs."""

    cuda_graph_strategy: Any
    dynamic_shapes_kernel_specialization_strategy: Any

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None: ...
    def create_runtime_cache(self) -> IRuntimeCache | None: ...
    def set_runtime_cache(self, cache: Any) -> bool: ...


class RtxExecutionContext(vendor.IExecutionContext, Protocol):
    """A context that says whether its work may be recorded."""

    def is_stream_capturable(self, stream: int) -> bool: ...


class RtxCudaEngine(vendor.ICudaEngine, Protocol):
    """A deserialized plan, whose kernels are compiled when its context is made."""

    def create_runtime_config(self) -> IRuntimeConfig | None: ...


class RtxRuntime(vendor.Runtime, Protocol):
    """A runtime that says what it has against a plan: flags, 0 where it cannot ask a GPU."""

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]: ...
