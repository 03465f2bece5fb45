"""A trajectory's device memory, planned from the contract: what is uploaded, worked on, kept."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from engines.contract import CONTRACTS, Component, Shape
from engines.cuda.arena import Layout
from engines.cuda.gpu import Gpu, Memory, Stream
from engines.engine import DeviceTensor
from runtime.gpu.kernels import LatentsSize, StepBuffers
from runtime.method.schedule import HISTORY_SLOTS, Column

# 999 inference steps, PNDM's one more, and the row after the last.
TABLE_ROWS = 1001
# What the kernels record: a number each for TDM, SDM and the decoder, and one to spare.
FAULTS = 4
ALONE_EMBEDS = "sdm_alone.prompt_embeds"

_FLOAT32, _INT32, _UINT8 = (np.dtype(each) for each in (np.float32, np.int32, np.uint8))
Shapes = Mapping[Component, Mapping[str, Shape]]
Dtypes = Mapping[str, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True, repr=False)
class GpuBuffers:
    """Every tensor by name, at addresses that stay.

    inputs, predictions, maps: one block each, so that it is one copy. pinned, predicted: twins of
    the first two in pinned memory, whose tensors are `staged`.
    """

    blocks: tuple[Memory, ...]
    inputs: Memory
    predictions: Memory
    maps: Memory
    maps_layout: Layout
    pinned: Memory
    predicted: Memory
    staged: Mapping[str, Any]
    tensors: Mapping[str, DeviceTensor]

    @classmethod
    def allocated(
        cls,
        gpu: Gpu,
        stack: ExitStack,
        size: LatentsSize,
        shapes: Shapes,
        dtypes: Dtypes,
        sums_elements: int,
    ) -> GpuBuffers:
        """Buffers for latents of one size; freed when the stack closes.

        shapes: both U-Nets' tensors. dtypes: element types of theirs. Raises DeviceMemoryError.
        """
        layouts = _layouts(size, shapes, dtypes, sums_elements)
        inputs, predictions, _, maps = layouts
        blocks = [gpu.memory(stack, layout.nbytes, "a trajectory") for layout in layouts]
        pinned, predicted = (
            gpu.pinned(stack, each.nbytes, "a trajectory") for each in (inputs, predictions)
        )
        tensors: dict[str, DeviceTensor] = {}
        for layout, block in zip(layouts, blocks, strict=True):
            tensors |= layout.on_device(block)
        return cls(
            blocks=tuple(blocks),
            inputs=blocks[0],
            predictions=blocks[1],
            maps=blocks[-1],
            maps_layout=maps,
            pinned=pinned,
            predicted=predicted,
            staged=inputs.on_host(pinned) | predictions.on_host(predicted),
            tensors=tensors,
        )

    def fill_with_zeros(self, stream: Stream) -> None:
        """As before any step: engines find numbers, the clock stands at the first row."""
        for block in self.blocks:
            stream.fill_with_zeros(block.address, block.nbytes)

    def of_model(self, component: Component) -> dict[str, DeviceTensor]:
        """A U-Net's tensors by the contract's names; latents and timestep are both U-Nets'."""
        shared = {"latents": "engine_latents", "timestep": "timestep"}
        return {
            tensor.name: self.tensors[shared.get(tensor.name, f"{component}.{tensor.name}")]
            for tensor in CONTRACTS[component].tensors
        }

    def of_sdm_alone(self) -> dict[str, DeviceTensor]:
        """SDM's tensors for its augmented pass by itself; its answer is the first of SDM's."""
        tensors = self.of_model(Component.SDM_UNET) | {"prompt_embeds": self.tensors[ALONE_EMBEDS]}
        whole, images = tensors["noise_prediction"], tensors["latents"].shape[0]
        return tensors | {"noise_prediction": replace(whole, shape=(images, *whole.shape[1:]))}

    def of_kernels(self) -> StepBuffers:
        """The kernels' view."""
        names = [each.name for each in fields(StepBuffers)]
        return StepBuffers(**{name: self.tensors[name].address for name in names})


def _layouts(
    size: LatentsSize, shapes: Shapes, dtypes: Dtypes, sums_elements: int
) -> tuple[Layout, Layout, Layout, Layout]:
    """Inputs, predictions, state and maps."""
    tdm, sdm = shapes[Component.TDM_UNET], shapes[Component.SDM_UNET]
    latents, element = tdm["latents"], dtypes["latents"]
    one_map = (size.images, size.height, size.width)
    inputs = Layout(
        {
            "latents": (latents, _FLOAT32),
            "engine_latents": (latents, element),
            "timestep": ((size.images,), dtypes["timestep"]),
            f"{Component.TDM_UNET}.prompt_embeds": (tdm["prompt_embeds"], dtypes["prompt_embeds"]),
            f"{Component.SDM_UNET}.prompt_embeds": (sdm["prompt_embeds"], dtypes["prompt_embeds"]),
            ALONE_EMBEDS: ((size.images, *sdm["prompt_embeds"][1:]), dtypes["prompt_embeds"]),
            "table": ((TABLE_ROWS, len(Column)), _FLOAT32),
            "clock": ((2,), _INT32),
            # A row of the kernels' four for each image; the steps' own is the first.
            "faults": ((size.images, FAULTS), _INT32),
        }
    )
    prediction = "noise_prediction"
    predictions = Layout(
        {
            f"{Component.TDM_UNET}.{prediction}": (tdm[prediction], dtypes[prediction]),
            f"{Component.SDM_UNET}.{prediction}": (sdm[prediction], dtypes[prediction]),
        }
    )
    state = Layout(
        {
            "history": ((HISTORY_SLOTS, *latents), _FLOAT32),
            "delta": (latents, _FLOAT32),
            "sums": ((sums_elements,), _FLOAT32),
        }
    )
    maps = Layout(
        {
            "tdm_saliency": (one_map, _FLOAT32),
            "sdm_saliency": (one_map, _FLOAT32),
            "mask": (one_map, _UINT8),
        }
    )
    return inputs, predictions, state, maps
