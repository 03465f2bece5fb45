"""PyTorch behind the GPU engines' protocol: the components' own modules on the caller's buffers.

A GPU machine without TensorRT and without ONNX Runtime's CUDA provider can thus still run, check
and time the CUDA runtime. An engine reads its inputs and writes its output at fixed addresses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.bundle.manifest import Precision
from engines.contract import CONTRACTS, Component, ElementType
from engines.engine import DeviceTensor
from engines.errors import ContractError
from export.graph.modules import module_of
from export.source import ModelSource


class TorchProvider:
    """Opens the components of one checkpoint; each module is loaded once."""

    provider = "torch"

    def __init__(self, source: ModelSource, device: str, precision: Precision) -> None:
        self._source, self._device = source, torch.device(device)
        self._dtype = torch.float16 if precision is Precision.FP16 else torch.float32
        self._modules: dict[Component, nn.Module] = {}

    def open(self, component: Component, shapes: Mapping[str, tuple[int, ...]]) -> TorchEngine:
        """An engine for any shapes of the contract."""
        del shapes
        if component not in self._modules:
            module = module_of(component, self._source)
            self._modules[component] = module.to(self._device, self._dtype)
        return TorchEngine(component, self._modules[component], self._device, self._dtype)

    def close(self) -> None:
        """Give the weights back."""
        self._modules.clear()


class TorchEngine:
    """One component, bound once and enqueued often.

    Not capturable: PyTorch's allocator must know of a capture, and the runtime's captures are its
    own.
    """

    provider = "torch"
    capturable = False

    def __init__(
        self, component: Component, module: nn.Module, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._component, self._module, self._device = component, module, device
        float_dtype = np.dtype(np.float16 if dtype is torch.float16 else np.float32)
        fixed = {
            ElementType.FLOAT: float_dtype,
            ElementType.FLOAT32: np.dtype(np.float32),
            ElementType.INT32: np.dtype(np.int32),
            ElementType.BOOL: np.dtype(np.bool_),
        }
        self._dtypes = {t.name: fixed[t.element_type] for t in CONTRACTS[component].tensors}
        self._inputs: dict[str, Tensor] = {}
        self._output: Tensor | None = None

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._dtypes

    def admits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        return set(shapes) == set(self._dtypes)

    def workspace_nbytes(self, shapes: Mapping[str, tuple[int, ...]], stream: int) -> int:
        """None of the caller's: PyTorch has its own allocator."""
        del shapes
        return 0

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        """View the caller's memory as tensors; raises ContractError if names or dtypes differ."""
        del workspace, stream
        found = {name: tensor.dtype for name, tensor in tensors.items()}
        if found != self._dtypes:
            raise ContractError(
                f"{self._component} was given tensors {found}, its own are {self._dtypes}"
            )
        views = {name: tensor_at(tensor, self._device) for name, tensor in tensors.items()}
        self._output = views.pop(CONTRACTS[self._component].outputs[0].name)
        self._inputs = views

    def enqueue(self, stream: int) -> None:
        """Put the module's kernels on the stream and return."""
        if self._output is None:
            raise ContractError(f"{self._component} was enqueued before it was bound")
        on_stream: Any = nullcontext()
        if self._device.type == "cuda":
            external: Any = torch.cuda.ExternalStream
            on_stream = torch.cuda.stream(external(stream))
        with torch.inference_mode(), on_stream:
            self._output.copy_(self._module(**self._inputs))

    def close(self) -> None:
        self._inputs, self._output = {}, None


@dataclass(frozen=True)
class _CudaArray:
    """Memory of the device as the CUDA array interface describes it."""

    __cuda_array_interface__: dict[str, Any]


def tensor_at(tensor: DeviceTensor, device: torch.device) -> Tensor:
    """The caller's memory as a torch tensor, without a copy."""
    if device.type == "cpu":
        nbytes = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
        memory = (ctypes.c_uint8 * nbytes).from_address(tensor.address)
        flat = np.ctypeslib.as_array(memory).view(tensor.dtype)
        return torch.from_numpy(flat.reshape(tensor.shape))
    interface = {
        "shape": tensor.shape, "typestr": tensor.dtype.str, "data": (tensor.address, False),
        "version": 3, "strides": None,
    }  # fmt: skip
    return torch.as_tensor(_CudaArray(interface), device=device)
