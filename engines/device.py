"""One Protocol for all GPU backends: bind a component to device buffers once, enqueue it often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class DeviceTensor:
    """Where a tensor lies on the device: address, shape, dtype (numpy)."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class DeviceEngine(Protocol):
    """A component on the GPU: bound once to device buffers, then enqueued many times.

    provider: "tensorrt" or "onnxruntime-cuda". capturable: may its enqueue be recorded into a CUDA
    graph? Shapes and tensors are by tensor name and complete: inputs and outputs of the contract.
    """

    provider: str
    capturable: bool

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Element type of every tensor, as this engine takes and gives it."""
        ...

    def admits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether it can be bound to tensors of these shapes."""
        ...

    def workspace_nbytes(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Activation memory that binding these shapes takes; 0 where the backend has its own."""
        ...

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        """Fix every tensor's address and the workspace's, for all enqueues to come.

        The memory stays the caller's and must outlive the binding; workspace is the address of
        workspace_nbytes() bytes, aligned to 256, that nothing else uses while the engine runs.
        Raises ContractError if names, dtypes or shapes do not fit.
        """
        ...

    def enqueue(self, stream: int) -> None:
        """Put the work on a stream and return."""
        ...

    def close(self) -> None:
        """Give the memory back; the stream must have done the engine's work."""
        ...
