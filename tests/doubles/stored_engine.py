"""Engines of stored predictions, on a GPU and on the host: the CUDA driver and numpy are all they
need.

An engine's output is seeded noise, over parts of which it copies what its inputs hold, so that what
was computed before shows in what comes after. All that it enqueues are copies within the device,
which any stream takes and any capture records. Both kinds give the same numbers, bit by bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, Component, ElementType
from engines.cuda.gpu import Gpu, Stream
from engines.engine import Array, DeviceNeed, DeviceTensor, Provider
from engines.providers import OpenProvider

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """The first elements of an input, and where in the flat output they go."""

    name: str
    start: int
    count: int


def dtypes_of(component: Component, element: str) -> dict[str, np.dtype[Any]]:
    """Of every tensor, where the engines' own type is element: "float16" or "float32"."""
    kinds = {
        ElementType.FLOAT: element,
        ElementType.FLOAT32: "float32",
        ElementType.INT32: "int32",
        ElementType.BOOL: "bool",
    }
    tensors = CONTRACTS[component].tensors
    return {tensor.name: np.dtype(kinds[tensor.element_type]) for tensor in tensors}


def stored(component: Component, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Normal noise, the same for a component and shape everywhere."""
    random = np.random.RandomState(zlib.crc32(component.encode()))
    noise: Array = random.standard_normal(shape).astype(dtype)
    return noise


def parts(component: Component, shapes: Shapes, element: str) -> list[Part]:
    """Inputs of the output's type take turns, an equal share for each and one for the noise."""
    dtypes, contract = dtypes_of(component, element), CONTRACTS[component]
    output = contract.outputs[0].name
    taken = [t.name for t in contract.inputs if dtypes[t.name] == dtypes[output]]
    share = int(np.prod(shapes[output])) // (len(taken) + 1)
    return [
        Part(name, turn * share, min(share, int(np.prod(shapes[name]))))
        for turn, name in enumerate(taken)
    ]


@dataclass
class StoredEngine:
    """A DeviceEngine whose enqueue is a few copies."""

    component: Component
    element: str
    gpu: Gpu
    capturable: bool
    provider: str = str(Provider.TENSORRT)
    tensors: dict[str, DeviceTensor] = field(default_factory=dict)
    _noise: DeviceTensor | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return dtypes_of(self.component, self.element)

    def admits(self, shapes: Shapes) -> bool:
        return True

    def workspace_nbytes(self, shapes: Shapes, stream: int) -> int:
        return 0

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        self.tensors = dict(tensors)
        output = self._output
        nbytes = int(np.prod(output.shape)) * output.dtype.itemsize
        memory = self.gpu.memory(self._stack, nbytes, f"what {self.component} predicts")
        self._noise = DeviceTensor(memory.address, output.shape, output.dtype)
        with ExitStack() as staging:
            pinned = self.gpu.pinned(staging, nbytes, "predictions")
            noise = stored(self.component, output.shape, output.dtype)
            pinned.array(0, output.shape, output.dtype)[...] = noise
            on = Stream(self.gpu.driver, stream)
            on.upload(memory.address, pinned.address, nbytes)
            on.synchronize()

    def enqueue(self, stream: int) -> None:
        assert self._noise is not None, "enqueued before it was bound"
        on, output = Stream(self.gpu.driver, stream), self._output
        size = output.dtype.itemsize
        on.copy(output.address, self._noise.address, int(np.prod(output.shape)) * size)
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        for part in parts(self.component, shapes, self.element):
            to = output.address + part.start * size
            on.copy(to, self.tensors[part.name].address, part.count * size)

    def close(self) -> None:
        self._stack.close()

    @property
    def _output(self) -> DeviceTensor:
        return self.tensors[CONTRACTS[self.component].outputs[0].name]


@dataclass
class StoredProvider:
    """A DeviceProvider of them."""

    element: str
    gpu: Gpu
    capturable: bool
    provider: Provider = Provider.TENSORRT

    def open(self, component: Component, shapes: Shapes) -> StoredEngine:
        return StoredEngine(component, self.element, self.gpu, self.capturable)

    def need(self, component: Component, shapes: Shapes) -> DeviceNeed:
        """Predictions lie with the engine that copies them."""
        return DeviceNeed(weights=component, weights_nbytes=0, activations_nbytes=0)

    def trim(self) -> None:
        """Nothing is shared."""

    def close(self) -> None:
        """Nothing is shared."""


@dataclass
class StoredHostEngine:
    """An Engine that gives on the host what StoredEngine gives on a GPU."""

    component: Component
    element: str
    provider: str = str(Provider.ONNXRUNTIME_CPU)
    buffers: dict[str, Array] = field(default_factory=dict)

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return dtypes_of(self.component, self.element)

    def bind(self, buffers: Mapping[str, Array]) -> None:
        self.buffers = dict(buffers)

    def enqueue(self) -> None:
        output = self.buffers[CONTRACTS[self.component].outputs[0].name]
        output[...] = stored(self.component, output.shape, output.dtype)
        shapes = {name: buffer.shape for name, buffer in self.buffers.items()}
        for part in parts(self.component, shapes, self.element):
            taken = self.buffers[part.name].reshape(-1)[: part.count]
            output.reshape(-1)[part.start : part.start + part.count] = taken

    def close(self) -> None:
        self.buffers = {}


def on_device(element: str, *, capturable: bool = True) -> OpenProvider:
    """What opens them on a GPU."""

    def opened(bundle: Bundle, gpu: Gpu, stream: Stream) -> StoredProvider:
        return StoredProvider(element, gpu, capturable)

    return opened


def on_host(element: str) -> Callable[[Bundle, Component], StoredHostEngine]:
    """What opens them on the host."""

    def opened(bundle: Bundle, component: Component) -> StoredHostEngine:
        return StoredHostEngine(component, element)

    return opened
