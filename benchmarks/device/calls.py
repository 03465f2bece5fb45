"""One call of a U-Net by itself, for so many images, on the GPU's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from benchmarks.analysis.stats import summary
from benchmarks.schema.gpu import CallRow
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, LATENT_PX, Component
from engines.cuda.arena import Layout, aligned
from engines.cuda.gpu import Gpu, Stream
from engines.cuda.graph import captured
from engines.engine import DeviceEngine, DeviceProvider, DeviceTensor
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule

IMAGES = (1, 2, 4, 8)
GUIDES = {
    Component.TDM_UNET: TDM_GUIDE,
    Component.SDM_UNET: SDM_GUIDES[GuidanceRule.PAPER],
}
_TIMESTEP = 500.0


@dataclass(frozen=True)
class BoundCall:
    """A call that ran once and is ready to run again. run: waits for nothing."""

    engine: DeviceEngine
    run: Callable[[], object]
    rows: int
    workspace_nbytes: int
    _gpu: Gpu
    _stream: Stream
    _output: DeviceTensor

    def prediction(self) -> npt.NDArray[np.float32]:
        """What the last run answered: [rows, 4, h, w]."""
        output = self._output
        nbytes = int(np.prod(output.shape)) * output.dtype.itemsize
        with ExitStack() as stack:
            pinned = self._gpu.pinned(stack, nbytes, "the noise prediction")
            self._stream.download(pinned.address, output.address, nbytes)
            self._stream.synchronize()
            found = pinned.array(0, output.shape, output.dtype).astype(np.float32)
        return cast(npt.NDArray[np.float32], found)


@contextmanager
def bound_call(
    bundle: Bundle,
    gpu: Gpu,
    stream: Stream,
    provider: DeviceProvider,
    component: Component,
    *,
    images: int,
    side: int,
) -> Iterator[BoundCall]:
    """Open, bind to noise, run once, capture where that can be.

    side: height and width of the latents. Raises RequestError where no engine admits the size,
    DeviceMemoryError, and what opening and running raise.
    """
    rows = len(GUIDES[component].passes) * images
    sizes = bundle.manifest.dimensions.sizes() | {"images": images, "rows": rows}
    contract = CONTRACTS[component]
    shapes = contract.shapes(sizes | {"h": side, "w": side})
    with ExitStack() as stack:
        # Closed in reverse: the graph, then the context, then the memory that both use.
        memory, contexts, graphs = (stack.enter_context(ExitStack()) for _ in range(3))
        engine = provider.open(component, shapes)
        contexts.callback(engine.close)
        layout = Layout({name: (shape, engine.dtypes[name]) for name, shape in shapes.items()})
        block = gpu.memory(memory, layout.nbytes, f"tensors of {component}")
        _upload_noise(gpu, stream, layout, block.address)
        need = max(1, aligned(engine.workspace_nbytes(shapes, stream.handle)))
        workspace = gpu.memory(memory, need, f"activations of {component}")
        tensors = layout.on_device(block)
        engine.bind(tensors, workspace.address, stream.handle)

        def enqueue() -> None:
            engine.enqueue(stream.handle)

        enqueue()
        stream.synchronize()
        run = captured(stream, graphs, enqueue).launch if engine.capturable else enqueue
        output = tensors[contract.outputs[0].name]
        yield BoundCall(engine, run, rows, need, gpu, stream, output)


def timed_call(
    bundle: Bundle,
    gpu: Gpu,
    stream: Stream,
    provider: DeviceProvider,
    component: Component,
    *,
    images: int,
    side: int,
    repeats: int,
) -> CallRow:
    """Time so many runs of a call; raises as `bound_call` does."""
    with bound_call(bundle, gpu, stream, provider, component, images=images, side=side) as call:
        found = summary(times_ms(gpu, stream, call.run, repeats))
    return CallRow(
        provider=str(provider.provider),
        component=component.value,
        images=images,
        rows=call.rows,
        size_px=side * LATENT_PX,
        captured=call.engine.capturable,
        count=found.count,
        p50_ms=round(found.p50, 4),
        p90_ms=round(found.p90, 4),
        ms_per_image=round(found.p50 / images, 4),
        workspace_nbytes=call.workspace_nbytes,
    )


def times_ms(gpu: Gpu, stream: Stream, run: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each run between two events, after two that do not count."""
    spent = []
    with ExitStack() as stack:
        start, end = (gpu.event(stack, timed=True) for _ in range(2))
        for repeat in range(repeats + 2):
            stream.record(start)
            run()
            stream.record(end)
            stream.synchronize()
            if repeat >= 2:
                spent.append(end.ms_since(start))
    return spent


def _upload_noise(gpu: Gpu, stream: Stream, layout: Layout, address: int) -> None:
    """Normal noise everywhere: zeros would draw less power and clock higher."""
    with ExitStack() as staging:
        pinned = gpu.pinned(staging, layout.nbytes, "inputs")
        random = np.random.RandomState(0)
        for name, array in layout.on_host(pinned).items():
            values = _TIMESTEP if name == "timestep" else random.standard_normal(array.shape)
            array[...] = values
        stream.upload(address, pinned.address, layout.nbytes)
        stream.synchronize()
