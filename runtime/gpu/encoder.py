"""The encoders on the GPU: bound once, then run with numpy in and out, before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from engines.contract import CONTRACTS, Component, Shape
from engines.cuda.arena import Layout, Workspaces
from engines.cuda.gpu import Gpu, Memory, Stream
from engines.engine import Array, DeviceEngine


@dataclass(frozen=True, kw_only=True, repr=False)
class GpuEncoder:
    """One encoder for tensors of fixed shapes, with a twin of its block in pinned memory."""

    engine: DeviceEngine
    component: Component
    memory: Memory
    pinned: Memory
    staged: Mapping[str, Any]

    @classmethod
    def bound(
        cls,
        gpu: Gpu,
        stack: ExitStack,
        workspaces: Workspaces,
        stream: Stream,
        engine: DeviceEngine,
        component: Component,
        shapes: Mapping[str, Shape],
    ) -> GpuEncoder:
        """Allocate zeros and bind; undone when the stack closes. Raises DeviceMemoryError."""
        layout = Layout({name: (shape, engine.dtypes[name]) for name, shape in shapes.items()})
        memory = gpu.memory(stack, layout.nbytes, f"{component}'s tensors")
        pinned = gpu.pinned(stack, layout.nbytes, f"{component}'s tensors")
        workspace = workspaces.lease(stack, engine.workspace_nbytes(shapes, stream.handle))
        stream.fill_with_zeros(memory.address, memory.nbytes)
        engine.bind(layout.on_device(memory), workspace.address, stream.handle)
        return cls(
            engine=engine,
            component=component,
            memory=memory,
            pinned=pinned,
            staged=layout.on_host(pinned),
        )

    def warm_up(self, stream: Stream) -> None:
        """Run once on zeros; the first run sets things up."""
        self.engine.enqueue(stream.handle)
        stream.synchronize()

    def run(self, stream: Stream, inputs: Mapping[str, Array]) -> Array:
        """Upload, run, download, wait; the output is valid until the next run."""
        for name, array in inputs.items():
            self.staged[name][...] = array
        stream.upload(self.memory.address, self.pinned.address, self.memory.nbytes)
        self.engine.enqueue(stream.handle)
        stream.download(self.pinned.address, self.memory.address, self.memory.nbytes)
        stream.synchronize()
        output: Array = self.staged[CONTRACTS[self.component].outputs[0].name]
        return output
