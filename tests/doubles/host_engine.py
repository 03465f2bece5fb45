"""Engines on the CUDA double that compute through ONNX Runtime on its memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.cuda.driver import checked
from engines.engine import DeviceNeed, DeviceTensor, Provider
from engines.errors import DeviceMemoryError, RequestError
from engines.onnxruntime.cpu import OnnxRuntimeEngine, open_on_cpu
from tests.doubles.cuda_driver import OUT_OF_MEMORY, CudaDriver, Misuse

Shapes = Mapping[str, tuple[int, ...]]
# What each takes on the device: weights, and activations while it runs.
WEIGHTS_NBYTES = {
    Component.TDM_UNET: 300 << 10, Component.SDM_UNET: 310 << 10, Component.VAE_DECODER: 40 << 10,
    Component.IMAGE_ENCODER: 120 << 10, Component.TEXT_ENCODER: 80 << 10,
    Component.FUSION_MLP: 20 << 10,
}  # fmt: skip
WORKSPACE_NBYTES = {
    Component.TDM_UNET: 100 << 10, Component.SDM_UNET: 150 << 10, Component.VAE_DECODER: 270 << 10,
    Component.IMAGE_ENCODER: 30 << 10, Component.TEXT_ENCODER: 20 << 10, Component.FUSION_MLP: 1000,
}  # fmt: skip

# Sessions of closed engines by their files: opening one takes a tenth of a second, and they are
# bound anew wherever they go. A copy of a bundle has the same.
Source = tuple[tuple[str, int, int], ...]
_idle: dict[Source, list[OnnxRuntimeEngine]] = {}


@dataclass
class HostEngine:
    """A DeviceEngine. source: its files' sizes and times. spoil: called with the outputs after
    each run.

    What it enqueues is two pieces of work: the first fills the workspace, the second finds it as it
    was. Set up by the first run after it is bound, it cannot be captured before that.
    """

    component: Component
    source: Source
    engine: OnnxRuntimeEngine
    driver: CudaDriver
    capturable: bool = True
    spoil: Callable[[HostEngine], None] = lambda _: None
    tensors: dict[str, DeviceTensor] = field(default_factory=dict)
    workspace: int = 0
    runs: int = 0
    has_run: bool = False
    is_open: bool = True
    provider: str = str(Provider.TENSORRT)

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self.engine.dtypes

    def admits(self, shapes: Shapes) -> bool:
        return True

    def workspace_nbytes(self, shapes: Shapes, stream: int) -> int:
        return WORKSPACE_NBYTES[self.component]

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        assert workspace % 256 == 0
        assert workspace != self.workspace, "bound twice"
        self.tensors, self.workspace, self.has_run = dict(tensors), workspace, False
        self.engine.bind({name: self.array(name) for name in tensors})

    def enqueue(self, stream: int) -> None:
        for tensor in self.tensors.values():
            assert self.driver.device.holds(tensor.address, _nbytes(tensor))
            assert tensor.address % 256 == 0
        self.driver.calls.append(f"run {self.component}")
        if not self.has_run:
            self._first(stream)
        # A graph keeps the workspace that it was captured with.
        self.driver.put(stream, partial(self._begin, self.workspace), ms=0.0)
        self.driver.put(stream, partial(self._run, self.workspace))

    def close(self) -> None:
        self.is_open = False
        self.driver.calls.append(f"close {self.component}")
        _idle.setdefault(self.source, []).append(self.engine)

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

    def _begin(self, workspace: int) -> None:
        self._check_alive(workspace)
        ctypes.memset(workspace, self._mark, self._workspace_nbytes)

    def _run(self, workspace: int) -> None:
        self.runs += 1
        self._check_alive(workspace)
        nbytes = self._workspace_nbytes
        if ctypes.string_at(workspace, nbytes) != bytes([self._mark]) * nbytes:
            raise Misuse(f"something else used the workspace of {self.component} while it ran")
        # Whatever else lies in the workspace is lost, as with a real engine.
        ctypes.memset(workspace, 0xFF, nbytes)
        self.engine.enqueue()
        self.spoil(self)

    def _check_alive(self, workspace: int) -> None:
        """What a graph replays may be long after it was captured."""
        if not self.is_open:
            raise Misuse(f"{self.component} runs after it was closed")
        places = [(tensor.address, _nbytes(tensor)) for tensor in self.tensors.values()]
        for address, nbytes in (*places, (workspace, self._workspace_nbytes)):
            if not self.driver.device.holds(address, nbytes):
                raise Misuse(f"{self.component} runs on memory that was given back")

    @property
    def _workspace_nbytes(self) -> int:
        return WORKSPACE_NBYTES[self.component]

    @property
    def _mark(self) -> int:
        return 1 + list(Component).index(self.component)


@dataclass
class HostProvider:
    """A DeviceProvider of such engines, whose weights are on the device once each.

    largest: latents beyond this are not admitted. tells: whether it knows before an engine is open
    what that takes to run.
    """

    bundle: Bundle
    driver: CudaDriver
    capturable: bool = True
    largest: int = 512
    spoil: Callable[[HostEngine], None] = lambda _: None
    tells: bool = True
    engines: list[HostEngine] = field(default_factory=list)
    weights: dict[Component, int] = field(default_factory=dict)
    provider: Provider = Provider.TENSORRT

    def open(self, component: Component, shapes: Shapes) -> HostEngine:
        self.need(component, shapes)
        self.driver.calls.append(f"open {component}")
        if component not in self.weights:
            answer = self.driver.cuMemAlloc(WEIGHTS_NBYTES[component])
            if answer[0] == OUT_OF_MEMORY:
                raise DeviceMemoryError(f"{component} does not fit")
            self.weights[component] = checked(answer, "cuMemAlloc", f"weights of {component}")
        stats = {name: (self.bundle.path / name).stat() for name in self._files(component)}
        source = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items())
        idle = _idle.get(source)
        engine = idle.pop() if idle else open_on_cpu(self.bundle, component, threads=1)
        opened = HostEngine(component, source, engine, self.driver, self.capturable, self.spoil)
        self.engines.append(opened)
        return opened

    def _files(self, component: Component) -> Sequence[str]:
        return sorted(self.bundle.component(component).files)

    def need(self, component: Component, shapes: Shapes) -> DeviceNeed:
        if max(shapes.get("latents", (0,))) > self.largest:
            raise RequestError(f"there are sizes up to {self.largest}")
        return DeviceNeed(
            weights=component,
            weights_nbytes=WEIGHTS_NBYTES[component],
            activations_nbytes=WORKSPACE_NBYTES[component] if self.tells else None,
        )

    def trim(self) -> None:
        used = {each.component for each in self.engines if each.is_open}
        for component in self.weights.keys() - used:
            self.driver.cuMemFree(self.weights.pop(component))

    def close(self) -> None:
        assert not any(each.is_open for each in self.engines)
        self.trim()
        self.driver.calls.append("close provider")

    def of(self, component: Component) -> HostEngine:
        """The latest engine of a component."""
        return next(each for each in reversed(self.engines) if each.component is component)


def _nbytes(tensor: DeviceTensor) -> int:
    return int(np.prod(tensor.shape)) * tensor.dtype.itemsize
