"""From the last latents to pictures, on the GPU: the decoder one picture at a time, then bytes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines.contract import LATENT_PX, Component, Shape
from engines.cuda.arena import Layout
from engines.cuda.gpu import Gpu, Memory, Stream
from engines.cuda.launcher import Launch
from engines.engine import DeviceEngine, DeviceTensor
from runtime.gpu.kernels import StepKernels
from runtime.method.guidance import Float32Array
from runtime.outputs import check_output, vary
from runtime.request import OutputType
from runtime.trajectory import as_pictures


@dataclass(frozen=True, kw_only=True, repr=False)
class GpuDecoder:
    """The bound decoder of one size.

    tensors: its own, for one picture. latents: [images, 4, h, w] in the engines' type, where the
    steps leave them. picture: [images, 8h, 8w, 3] uint8. pinned: holds what a request asks for.
    """

    engine: DeviceEngine
    tensors: Mapping[str, DeviceTensor]
    latents: DeviceTensor
    picture: DeviceTensor
    launches: tuple[Launch, ...]
    pinned: Memory

    @classmethod
    def prepared(
        cls,
        gpu: Gpu,
        stack: ExitStack,
        engine: DeviceEngine,
        shapes: Mapping[str, Shape],
        latents: DeviceTensor,
        faults: DeviceTensor,
        kernels: StepKernels,
    ) -> GpuDecoder:
        """Allocate what it reads and writes; freed when the stack closes.

        faults: [images, 4] int32; each image's are its own.
        """
        layout = Layout({name: (its, engine.dtypes[name]) for name, its in shapes.items()})
        block = gpu.memory(stack, layout.nbytes, "the decoder's tensors")
        tensors = layout.on_device(block)
        size, images, decoded = kernels.size, kernels.size.images, tensors["pixels"].address
        shape = (images, LATENT_PX * size.height, LATENT_PX * size.width, 3)
        nbytes = int(np.prod(shape))
        memory = gpu.memory(stack, nbytes, "the pictures")
        picture = DeviceTensor(memory.address, shape, np.dtype(np.uint8))
        each = nbytes // images
        return cls(
            engine=engine,
            tensors=tensors,
            latents=latents,
            picture=picture,
            launches=tuple(
                launch
                for image in range(images)
                for launch in kernels.pixels(
                    decoded,
                    memory.address + image * each,
                    images=1,
                    faults=faults.address + image * _nbytes(faults) // images,
                )
            ),
            pinned=gpu.pinned(stack, nbytes * tensors["pixels"].dtype.itemsize, "the pictures"),
        )

    def enqueue(self, stream: Stream, output_type: OutputType) -> None:
        """Decode every picture and bring it to the host."""
        source, target, pixels = self.latents, self.tensors["latents"], self.tensors["pixels"]
        nbytes = _nbytes(target)
        for image, launch in enumerate(self.launches):
            stream.copy(target.address, source.address + image * nbytes, nbytes)
            self.engine.enqueue(stream.handle)
            # Also looks for numbers that are not finite, whatever is asked for.
            launch.enqueue(stream.handle)
            if output_type is OutputType.NP:
                slot = self.pinned.address + image * _nbytes(pixels)
                stream.download(slot, pixels.address, _nbytes(pixels))
        if output_type is OutputType.PIL:
            stream.download(self.pinned.address, self.picture.address, _nbytes(self.picture))

    def result(self, output_type: OutputType) -> list[Image.Image] | Float32Array:
        """What enqueue brought, once the stream is done; a copy."""
        if output_type is OutputType.PIL:
            pictures = self.pinned.array(0, self.picture.shape, np.uint8)
            return [Image.fromarray(picture.copy()) for picture in pictures]
        pixels = self.tensors["pixels"]
        shape = (len(self.launches), *pixels.shape[1:])
        decoded: Any = self.pinned.array(0, shape, pixels.dtype)
        return as_pictures(decoded.astype(np.float32))

    def check(self, stream: Stream, output_type: OutputType, provider: str, bundle: Path) -> None:
        """Look at the last picture of what `result` gave; raises ConstantOutputError.

        Where its levels are all the same, its own numbers tell whether that is a picture.
        """
        pixels = self.tensors["pixels"]
        if output_type is OutputType.PIL:
            picture: Any = self.pinned.array(0, self.picture.shape, np.uint8)[-1]
            if vary(picture.reshape(1, -1, 3).swapaxes(1, 2)):
                return
        stream.download(self.pinned.address, pixels.address, _nbytes(pixels))
        stream.synchronize()
        decoded: Any = self.pinned.array(0, pixels.shape, pixels.dtype)
        check_output(Component.VAE_DECODER, decoded, provider, "", bundle)


def _nbytes(tensor: DeviceTensor) -> int:
    return int(np.prod(tensor.shape)) * tensor.dtype.itemsize
