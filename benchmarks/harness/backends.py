"""The backends of the runtime on this machine: which can run, and why not the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness.machine import gpu_facts
from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.contract import CONTRACTS, Component
from engines.cuda.driver import driver
from engines.cuda.gpu import Gpu, Stream
from engines.engine import Array, Engine, HostPrecision, Provider
from engines.errors import ProviderUnavailableError
from engines.providers import GPU_PROVIDERS, HOST_PROVIDERS
from engines.tune.chosen import chosen_settings
from runtime import FaceDiffuser
from runtime.gpu.backend import GpuBackend
from runtime.host.backend import HostBackend
from runtime.host.pool import EnginePool, open_with
from runtime.trajectory import Backend

if TYPE_CHECKING:
    # Not at run time: a process that is measured must hold no torch that its user would not load.
    from export.source import ModelSource

CPU = Provider.ONNXRUNTIME_CPU.value
OPENVINO = Provider.OPENVINO.value
# The CUDA runtime on engines made of torch modules; for measuring, no provider of the runtime's.
TORCH = "torch-cuda"
_ON_GPU = (*(each.value for each in GPU_PROVIDERS), TORCH)
PROVIDERS = (CPU, OPENVINO, *_ON_GPU)


@dataclass(frozen=True)
class EngineCall:
    """One enqueue of a component, on time.perf_counter's clock in seconds."""

    component: Component
    start: float
    end: float

    @property
    def ms(self) -> float:
        return (self.end - self.start) * 1e3


@dataclass
class CallLog:
    """What the engines did, in order, cleared by its reader, and the buffers they are bound to."""

    calls: list[EngineCall] = field(default_factory=list)
    buffers: dict[Component, Mapping[str, Array]] = field(default_factory=dict)

    def output(self, component: Component) -> Array:
        """A copy of what a component computed last."""
        return self.buffers[component][CONTRACTS[component].outputs[0].name].copy()

    def taken(self) -> list[EngineCall]:
        """The calls since the last reading."""
        calls, self.calls = self.calls, []
        return calls


class LoggedEngine:
    """An engine whose enqueues are written into a log: two readings of the clock each."""

    def __init__(self, engine: Engine, component: Component, log: CallLog) -> None:
        self._engine, self._component, self._log = engine, component, log
        self.provider = engine.provider

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._engine.dtypes

    def bind(self, buffers: Mapping[str, Array]) -> None:
        self._engine.bind(buffers)
        self._log.buffers[self._component] = buffers

    def enqueue(self) -> None:
        start = time.perf_counter()
        self._engine.enqueue()
        self._log.calls.append(EngineCall(self._component, start, time.perf_counter()))

    def close(self) -> None:
        self._engine.close()


@dataclass(frozen=True)
class OpenedBackend:
    """A bundle open on one provider. log: its engine calls, None where a graph hides them."""

    face_diffuser: FaceDiffuser
    log: CallLog | None


def why_not() -> dict[str, str | None]:
    """Every provider that can be measured -> None, or why it cannot run on this machine.

    A GPU comes first: its time is short, and what a CPU takes at full size outlasts it.
    """
    gpu = None if gpu_facts() is not None else "no NVIDIA GPU"
    on_gpu: dict[str, str | None] = dict.fromkeys(_ON_GPU, gpu)
    on_cpu = {provider.value: _missing(provider) for provider in HOST_PROVIDERS}
    return on_gpu | on_cpu if gpu is None else on_cpu | on_gpu


def _missing(provider: Provider) -> str | None:
    """Why a host's provider cannot run here."""
    try:
        HOST_PROVIDERS[provider].library()
    except ProviderUnavailableError as error:
        return str(error)
    return None


def gpu_of(provider: str) -> str | None:
    """The name of the GPU that a provider computes on; None for the CPU's."""
    facts = None if provider in HOST_PROVIDERS else gpu_facts()
    return None if facts is None else facts["name"]


@contextmanager
def opened_backend(
    path: str | Path,
    provider: str,
    threads: int | None,
    source: ModelSource | None = None,
    *,
    precision: HostPrecision | None = None,
    quantization: Quantization | str | None = None,
) -> Iterator[OpenedBackend]:
    """Open a bundle on a provider, with its engine calls logged where they are host calls.

    source: the bundle's checkpoint, for TORCH alone. precision, quantization: as
    FaceDiffuser.open takes them. Raises ProviderUnavailableError or
    PlanMismatchError where this machine or the bundle is not made for the provider.
    """
    if provider in HOST_PROVIDERS:
        log = CallLog()
        bundle = Bundle.open(path).quantized(quantization)
        backend = _logged_backend(bundle, Provider(provider), precision, threads, log)
        with FaceDiffuser(bundle, backend) as face_diffuser:
            yield OpenedBackend(face_diffuser, log)
    elif provider == TORCH:
        if source is None:
            raise ValueError(f"{TORCH} computes with the checkpoint's own modules; name its source")
        bundle = Bundle.open(path)
        with FaceDiffuser(bundle, _torch_backend(bundle, source)) as face_diffuser:
            yield OpenedBackend(face_diffuser, None)
    else:
        with FaceDiffuser.open(
            path, provider=provider, threads=threads, quantization=quantization
        ) as face_diffuser:
            yield OpenedBackend(face_diffuser, None)


def _logged_backend(
    bundle: Bundle,
    provider: Provider,
    precision: HostPrecision | None,
    threads: int | None,
    log: CallLog,
) -> Backend:
    settings = chosen_settings(bundle, provider, precision, threads)
    open_engine = open_with(settings)

    def open_logged(opened: Bundle, component: Component) -> Engine:
        return LoggedEngine(open_engine(opened, component), component, log)

    return HostBackend(EnginePool(bundle, settings=settings, open_engine=open_logged))


def _torch_backend(bundle: Bundle, source: ModelSource) -> Backend:
    """The CUDA runtime, with PyTorch's kernels where TensorRT's would be."""
    from benchmarks.snf.torch_device import TorchProvider

    def open_provider(opened: Bundle, gpu: Gpu, stream: Stream) -> Any:
        del opened, gpu, stream
        return TorchProvider(source, "cuda", bundle.manifest.precision)

    return GpuBackend(bundle, driver(), open_provider)
