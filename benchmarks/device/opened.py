"""The GPU's providers, opened for measuring: whole, or the GPU and its engines alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engines.bundle.folder import Bundle
from engines.cuda.driver import driver
from engines.cuda.gpu import Gpu, Stream, opened_gpu
from engines.engine import DeviceProvider, Provider
from engines.providers import GPU_PROVIDERS
from runtime import FaceDiffuser
from runtime.gpu.backend import GpuBackend


@dataclass(frozen=True)
class Drawing:
    """A bundle open on a GPU. free_nbytes: of the GPU before it was opened."""

    face_diffuser: FaceDiffuser
    backend: GpuBackend
    free_nbytes: int


@contextmanager
def drawing_on(bundle: Bundle, provider: Provider) -> Iterator[Drawing]:
    """Open a bundle on one provider and no other; both ways through the fusion stage are timed."""
    row = GPU_PROVIDERS[provider]
    bindings = driver(row.extra)
    with opened_gpu(bindings) as gpu:
        free_nbytes = gpu.free_nbytes()[0]
        backend = GpuBackend(bundle, bindings, row.open)
        with FaceDiffuser(bundle, backend) as face_diffuser:
            yield Drawing(face_diffuser, backend, free_nbytes)


@contextmanager
def engines_on(bundle: Bundle, provider: Provider) -> Iterator[tuple[Gpu, Stream, DeviceProvider]]:
    """The GPU, a stream of it, and what opens the bundle's components there."""
    row = GPU_PROVIDERS[provider]
    with ExitStack() as stack:
        gpu = stack.enter_context(opened_gpu(driver(row.extra)))
        stream = gpu.stream(stack)
        opened = row.open(bundle, gpu, stream)
        stack.callback(opened.close)
        yield gpu, stream, opened
