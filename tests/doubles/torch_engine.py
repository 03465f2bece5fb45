"""Engines that wrap torch modules, on a real GPU or on the CUDA double's memory.

The modules are made up and elementwise, and write into tensors of their own, so that nothing is
allocated once they have run; what they predict depends on every input.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from engines.contract import CONTRACTS, Component
from engines.engine import DeviceNeed, DeviceTensor, Provider
from tests.doubles.stored_engine import dtypes_of

Shapes = Mapping[str, tuple[int, ...]]
Put = Callable[[int, Callable[[], None]], None]

_TORCH = {
    "float16": torch.float16, "float32": torch.float32, "int32": torch.int32, "bool": torch.bool,
}  # fmt: skip


def on_torchs_stream(stream: int, work: Callable[[], None]) -> None:
    """Enqueue a torch computation on a stream of ours."""
    ours = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(ours):
        work()


@dataclass
class TorchEngine:
    """A DeviceEngine. element: "float16" or "float32". put: how work gets onto a stream."""

    component: Component
    element: str
    device: str
    capturable: bool
    put: Put
    provider: str = str(Provider.TENSORRT)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    scratch: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return dtypes_of(self.component, self.element)

    def admits(self, shapes: Shapes) -> bool:
        return True

    def workspace_nbytes(self, shapes: Shapes, stream: int) -> int:
        return 0

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        self.tensors = {name: _at(tensor, self.device) for name, tensor in tensors.items()}
        output = self.tensors[CONTRACTS[self.component].outputs[0].name]
        total = torch.zeros_like(output, dtype=torch.float32)
        # What the edge of a photo gives is the same everywhere; an engine's answer is not.
        ramp = torch.linspace(0, 1, total.numel(), device=total.device).view_as(total)
        self.scratch = {"sum": total, "ramp": ramp}

    def enqueue(self, stream: int) -> None:
        self.put(stream, self._compute)

    def close(self) -> None:
        self.tensors, self.scratch = {}, {}

    def _compute(self) -> None:
        """Add up all inputs, each stretched over the output, then take the sine."""
        contract = CONTRACTS[self.component]
        output, total = self.tensors[contract.outputs[0].name], self.scratch["sum"]
        total.copy_(self.scratch["ramp"])
        for weight, tensor in enumerate(contract.inputs, start=1):
            values, factor = self.tensors[tensor.name].view(-1), weight + len(self.component)
            if values.numel() == 1:
                total.add_(values, alpha=factor)
                continue
            repeats = -(-total.numel() // values.numel())
            flat = total.view(-1)
            for start in range(repeats):
                part = flat[start * values.numel() : (start + 1) * values.numel()]
                part.add_(values[: part.numel()], alpha=factor)
        total.sin_()
        output.copy_(total)


@dataclass
class TorchProvider:
    """A DeviceProvider of them."""

    element: str
    device: str
    capturable: bool
    put: Put
    provider: Provider = Provider.TENSORRT

    def open(self, component: Component, shapes: Shapes) -> TorchEngine:
        return TorchEngine(component, self.element, self.device, self.capturable, self.put)

    def need(self, component: Component, shapes: Shapes) -> DeviceNeed:
        return DeviceNeed(weights=component, weights_nbytes=0, activations_nbytes=0)

    def trim(self) -> None:
        """Nothing is shared."""

    def close(self) -> None:
        """Nothing is shared."""


def _at(tensor: DeviceTensor, device: str) -> torch.Tensor:
    """The memory that we allocated, as a torch tensor."""
    if device == "cpu":
        nbytes = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
        memory = (ctypes.c_uint8 * nbytes).from_address(tensor.address)
        flat = torch.frombuffer(memory, dtype=_TORCH[str(tensor.dtype)])
        return flat.view(tensor.shape)
    interface = {
        "shape": tensor.shape, "typestr": tensor.dtype.str, "data": (tensor.address, False),
        "version": 3, "strides": None,
    }  # fmt: skip
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device=device)
