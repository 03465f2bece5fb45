"""What all backends are to the runtime: bind a component to its buffers once, enqueue it often.

`Engine` computes on the host, `DeviceEngine` on a GPU's buffers; `Provider` names who computes,
`HostPrecision` in what on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.contract import Component
from engines.errors import ContractError

Array = npt.NDArray[Any]


class Provider(StrEnum):
    """The backends, best first."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_CPU = "onnxruntime-cpu"
    OPENVINO = "openvino"


class HostPrecision(StrEnum):
    """What a host's U-Nets compute in. bfloat16: their predictions err by some 1e-2."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Engine(Protocol):
    """A component of a bundle, ready to run.

    dtypes: element type of every tensor of the contract, as this engine takes and gives it.
    """

    provider: str

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]: ...

    def bind(self, buffers: Mapping[str, Array]) -> None:
        """Fix the buffer of every input and output tensor; shapes are those of the buffers.

        The buffers stay the caller's, are read and written in place by every enqueue, and must
        outlive the binding. Raises ContractError if names, dtypes or shapes do not fit.
        """
        ...

    def enqueue(self) -> None:
        """Compute the bound outputs from the bound inputs."""
        ...

    def close(self) -> None:
        """Give the memory back; the engine is of no use afterwards."""
        ...


@dataclass(frozen=True)
class DeviceTensor:
    """Where a tensor lies on the device: address, shape, dtype (numpy)."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, kw_only=True)
class DeviceNeed:
    """What an engine takes of a GPU's memory, as far as it is known before it is opened.

    weights: the name of what holds them, which engines of the same name share. activations_nbytes:
    for the shapes that were asked about; None where only the open engine tells.
    """

    weights: str
    weights_nbytes: int
    activations_nbytes: int | None


class DeviceEngine(Protocol):
    """A component on the GPU: bound once to device buffers, then enqueued many times.

    provider: its Provider's value. capturable: may its enqueue be recorded into a CUDA graph, once
    it is bound? Shapes and tensors are by tensor name and complete: inputs and outputs of the
    contract.
    """

    provider: str

    @property
    def capturable(self) -> bool: ...

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Element type of every tensor, as this engine takes and gives it."""
        ...

    def admits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether it can be bound to tensors of these shapes."""
        ...

    def workspace_nbytes(self, shapes: Mapping[str, tuple[int, ...]], stream: int) -> int:
        """Activation memory that binding these shapes takes; 0 where the backend has its own.

        stream: the one that it will be bound on, where an engine must be set to shapes to know.
        """
        ...

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        """Fix every tensor's address and the workspace's, for all enqueues to come.

        The memory stays the caller's and must outlive the binding; workspace is the address of
        workspace_nbytes() bytes, aligned to 256, that nothing else uses while the engine runs. It
        may be bound again while none of its work is under way or captured. Raises ContractError if
        names, dtypes or shapes do not fit.
        """
        ...

    def enqueue(self, stream: int) -> None:
        """Put the work on a stream and return."""
        ...

    def close(self) -> None:
        """Give the memory back; the stream must have done the engine's work."""
        ...


class DeviceProvider(Protocol):
    """Opens the components of one bundle on one GPU; weights are loaded once each."""

    provider: Provider

    def open(self, component: Component, shapes: Mapping[str, tuple[int, ...]]) -> DeviceEngine:
        """An engine that admits tensors of these shapes, to be bound by the caller.

        Raises RequestError, listing what there is, if none does; DeviceMemoryError,
        ProviderUnavailableError, BundleCorruptError if it does not open.
        """
        ...

    def need(self, component: Component, shapes: Mapping[str, tuple[int, ...]]) -> DeviceNeed:
        """What `open` would take, without opening anything; raises RequestError as it does."""
        ...

    def trim(self) -> None:
        """Give back the weights that no open engine uses; who opens one again loads them again."""
        ...

    def close(self) -> None:
        """Give the weights back, after every engine was closed."""
        ...


def check_buffers(
    component: Component, dtypes: Mapping[str, np.dtype[Any]], buffers: Mapping[str, Array]
) -> None:
    """Raise ContractError unless there is a contiguous buffer of its dtype for every tensor."""
    if set(buffers) != set(dtypes):
        raise ContractError(
            f"{component} was given buffers {sorted(buffers)}, its tensors are {sorted(dtypes)}"
        )
    for name, buffer in buffers.items():
        if buffer.dtype != dtypes[name] or not buffer.flags.c_contiguous:
            raise ContractError(
                f"{component} takes {name} as contiguous {dtypes[name]}, got {buffer.dtype}"
            )
