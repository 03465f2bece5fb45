"""Engines on the CUDA double that compute through ONNX Runtime on its memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.engine import DeviceTensor, Provider
from engines.errors import RequestError
from engines.onnxruntime.cpu import OnnxRuntimeEngine, open_on_cpu
from tests.doubles.cuda_driver import CudaDriver

Shapes = Mapping[str, tuple[int, ...]]
WORKSPACE_NBYTES = 1000


@dataclass
class HostEngine:
    """A DeviceEngine. spoil: called with the outputs after each run."""

    component: Component
    engine: OnnxRuntimeEngine
    driver: CudaDriver
    capturable: bool = True
    spoil: Callable[[HostEngine], None] = lambda _: None
    tensors: dict[str, DeviceTensor] = field(default_factory=dict)
    workspace: int = 0
    runs: int = 0
    provider: str = str(Provider.TENSORRT)

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self.engine.dtypes

    def admits(self, shapes: Shapes) -> bool:
        return True

    def workspace_nbytes(self, shapes: Shapes, stream: int) -> int:
        return WORKSPACE_NBYTES

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        assert not self.tensors, "bound twice"
        assert workspace % 256 == 0
        self.tensors, self.workspace = dict(tensors), workspace
        self.engine.bind({name: self.array(name) for name in tensors})

    def enqueue(self, stream: int) -> None:
        for tensor in self.tensors.values():
            assert self.driver.device.holds(tensor.address, _nbytes(tensor))
            assert tensor.address % 256 == 0
        self.driver.calls.append(f"run {self.component}")
        self.driver.put(stream, self._run)

    def close(self) -> None:
        self.driver.calls.append(f"close {self.component}")
        self.engine.close()

    def array(self, name: str) -> Any:
        """A tensor's memory."""
        tensor = self.tensors[name]
        memory = (ctypes.c_uint8 * _nbytes(tensor)).from_address(tensor.address)
        return np.ctypeslib.as_array(memory).view(tensor.dtype).reshape(tensor.shape)

    def _run(self) -> None:
        self.runs += 1
        # Whatever else lies in the workspace is lost, as with a real engine.
        ctypes.memset(self.workspace, 0xFF, WORKSPACE_NBYTES)
        self.engine.enqueue()
        self.spoil(self)


@dataclass
class HostProvider:
    """A DeviceProvider of such engines. largest: latents beyond this are not admitted."""

    bundle: Bundle
    driver: CudaDriver
    capturable: bool = True
    largest: int = 512
    spoil: Callable[[HostEngine], None] = lambda _: None
    engines: list[HostEngine] = field(default_factory=list)
    provider: Provider = Provider.TENSORRT

    def open(self, component: Component, shapes: Shapes) -> HostEngine:
        if max(shapes.get("latents", (0,))) > self.largest:
            raise RequestError(f"there are sizes up to {self.largest}")
        engine = open_on_cpu(self.bundle, component, threads=1)
        opened = HostEngine(component, engine, self.driver, self.capturable, self.spoil)
        self.engines.append(opened)
        return opened

    def close(self) -> None:
        self.driver.calls.append("close provider")

    def of(self, component: Component) -> HostEngine:
        """The latest engine of a component."""
        return next(each for each in reversed(self.engines) if each.component is component)


def _nbytes(tensor: DeviceTensor) -> int:
    return int(np.prod(tensor.shape)) * tensor.dtype.itemsize
