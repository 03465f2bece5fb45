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
from tests.doubles.cuda_driver import CudaDriver, Misuse

Shapes = Mapping[str, tuple[int, ...]]
WORKSPACE_NBYTES = 1000


@dataclass
class HostEngine:
    """A DeviceEngine. spoil: called with the outputs after each run.

    What it enqueues is two pieces of work: the first fills the workspace, the second finds it as it
    was. Set up by its first run, it cannot be captured before that.
    """

    component: Component
    engine: OnnxRuntimeEngine
    driver: CudaDriver
    capturable: bool = True
    spoil: Callable[[HostEngine], None] = lambda _: None
    tensors: dict[str, DeviceTensor] = field(default_factory=dict)
    workspace: int = 0
    runs: int = 0
    has_run: bool = False
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
        if not self.has_run:
            self._first(stream)
        self.driver.put(stream, self._begin, ms=0.0)
        self.driver.put(stream, self._run)

    def close(self) -> None:
        self.driver.calls.append(f"close {self.component}")
        self.engine.close()

    def array(self, name: str) -> Any:
        """A tensor's memory."""
        tensor = self.tensors[name]
        memory = (ctypes.c_uint8 * _nbytes(tensor)).from_address(tensor.address)
        return np.ctypeslib.as_array(memory).view(tensor.dtype).reshape(tensor.shape)

    def _first(self, stream: int) -> None:
        """As with TensorRT: what a first run sets up invalidates a capture."""
        capture = self.driver.streams[stream].capture
        if capture is not None:
            capture.valid = False
        self.has_run = capture is None

    def _begin(self) -> None:
        self._check_alive()
        ctypes.memset(self.workspace, self._mark, WORKSPACE_NBYTES)

    def _run(self) -> None:
        self.runs += 1
        self._check_alive()
        if ctypes.string_at(self.workspace, WORKSPACE_NBYTES) != bytes([self._mark]) * (
            WORKSPACE_NBYTES
        ):
            raise Misuse(f"something else used the workspace of {self.component} while it ran")
        # Whatever else lies in the workspace is lost, as with a real engine.
        ctypes.memset(self.workspace, 0xFF, WORKSPACE_NBYTES)
        self.engine.enqueue()
        self.spoil(self)

    def _check_alive(self) -> None:
        """What a graph replays may be long after it was captured."""
        places = [(tensor.address, _nbytes(tensor)) for tensor in self.tensors.values()]
        for address, nbytes in (*places, (self.workspace, WORKSPACE_NBYTES)):
            if not self.driver.device.holds(address, nbytes):
                raise Misuse(f"{self.component} runs on memory that was given back")

    @property
    def _mark(self) -> int:
        return 1 + list(Component).index(self.component)


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
