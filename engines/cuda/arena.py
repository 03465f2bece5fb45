"""Device memory, planned before the first step: where each tensor lies, and who shares what."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.contract import Shape
from engines.cuda.gpu import Gpu, Memory
from engines.engine import DeviceTensor

# What TensorRT asks of every address.
ALIGNMENT = 256


def aligned(nbytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Layout:
    """Tensors one after another in one block, each aligned; the same on host and device."""

    tensors: Mapping[str, tuple[Shape, np.dtype[Any]]]

    @property
    def nbytes(self) -> int:
        return sum(aligned(self._nbytes(name)) for name in self.tensors)

    def on_device(self, memory: Memory) -> dict[str, DeviceTensor]:
        """Every tensor in a block of device memory."""
        return {
            name: DeviceTensor(memory.address + offset, *self.tensors[name])
            for name, offset in self._offsets().items()
        }

    def on_host(self, memory: Memory) -> dict[str, Any]:
        """Every tensor in a block of pinned memory, as an array."""
        return {
            name: memory.array(offset, *self.tensors[name])
            for name, offset in self._offsets().items()
        }

    def _nbytes(self, name: str) -> int:
        shape, dtype = self.tensors[name]
        return int(np.prod(shape)) * dtype.itemsize

    def _offsets(self) -> dict[str, int]:
        offsets, end = {}, 0
        for name in self.tensors:
            offsets[name] = end
            end += aligned(self._nbytes(name))
        return offsets


@dataclass
class _Block:
    memory: Memory
    stack: ExitStack
    users: int = 0


@dataclass
class Workspaces:
    """Activation memory. All that leases it runs one after another, so all may share one block.

    A lease that no block is large enough for gets a new one; the others' addresses stay, since
    captured graphs hold them.
    """

    gpu: Gpu
    _blocks: list[_Block] = field(default_factory=list)

    def lease(self, stack: ExitStack, nbytes: int) -> Memory:
        """At least so many bytes until the stack closes; raises DeviceMemoryError."""
        fitting = [block for block in self._blocks if block.memory.nbytes >= nbytes]
        if not fitting:
            own = ExitStack()
            size = max(nbytes, ALIGNMENT)
            fitting = [_Block(self.gpu.memory(own, size, "activation memory"), own)]
            self._blocks += fitting
        block = min(fitting, key=lambda each: each.memory.nbytes)
        block.users += 1
        stack.callback(self._release, block)
        return block.memory

    def _release(self, block: _Block) -> None:
        block.users -= 1
        if not block.users:
            self._blocks.remove(block)
            block.stack.close()
