"""Which backend draws: the one that is asked for, or the first that can run on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from engines.bundle.folder import Bundle
from engines.contract import LATENT_PX
from engines.cuda.driver import driver
from engines.cuda.gpu import Gpu, Stream
from engines.engine import DeviceProvider, Provider
from engines.errors import PlanMismatchError, ProviderUnavailableError, RequestError
from engines.onnxruntime.cuda import OnnxRuntimeCudaProvider
from engines.tensorrt.provider import TensorRtProvider
from engines.threads import checked_threads
from runtime.gpu.backend import GpuBackend
from runtime.host.backend import HostBackend
from runtime.host.pool import HOST_ENGINES, EnginePool
from runtime.trajectory import Backend, RequestKind

# What makes a backend one that cannot run here, rather than one that is broken.
_CANNOT = (ProviderUnavailableError, PlanMismatchError)


def opened_backend(
    bundle: Bundle,
    wanted: Provider | str | None,
    *,
    threads: int | None = None,
    low_memory: bool = False,
) -> tuple[Backend, Mapping[Provider, str]]:
    """Open the wanted backend, or the best there is; also says why not a better one.

    Raises RequestError for an unknown name, and whatever opening raises. Only backends that this
    machine or bundle is not made for are passed over: a damaged plan or a full GPU is an error.
    """
    provider = None if wanted is None else _named(wanted)
    threads = checked_threads(threads)
    if low_memory:
        if provider not in (None, *HOST_ENGINES):
            choices = " and ".join(HOST_ENGINES)
            raise RequestError(f"low_memory is for {choices}, not for {provider}")
        provider = provider or Provider.ONNXRUNTIME_CPU

    def on_host(host: Provider) -> Backend:
        pool = EnginePool(bundle, provider=host, threads=threads, low_memory=low_memory)
        return HostBackend(pool)

    opens: dict[Provider, Callable[[], Backend]] = {
        Provider.TENSORRT: lambda: _on_gpu(bundle, _tensorrt),
        Provider.ONNXRUNTIME_CUDA: lambda: _on_gpu(bundle, _onnxruntime_cuda),
        Provider.ONNXRUNTIME_CPU: lambda: on_host(Provider.ONNXRUNTIME_CPU),
        Provider.OPENVINO: lambda: on_host(Provider.OPENVINO),
    }
    if provider is not None:
        return opens[provider](), {}
    declined: dict[Provider, str] = {}
    for candidate, opened in opens.items():
        try:
            return opened(), declined
        except _CANNOT as error:
            declined[candidate] = str(error)
    reasons = "; ".join(f"{provider}: {reason}" for provider, reason in declined.items())
    raise ProviderUnavailableError(f"nothing here can run {bundle.path}: {reasons}")


def _named(name: Provider | str) -> Provider:
    try:
        return Provider(name)
    except ValueError as error:
        choices = ", ".join(Provider)
        raise RequestError(f"provider must be one of {choices}, got {name!r}") from error


def _on_gpu(
    bundle: Bundle, open_provider: Callable[[Bundle, Gpu, Stream], DeviceProvider]
) -> GpuBackend:
    """Open a GPU backend, ready for a request's own defaults."""
    backend = GpuBackend(bundle, driver(), open_provider)
    side = bundle.manifest.dimensions.native_px // LATENT_PX
    try:
        # A bundle may have plans for other sizes only; its requests then say which.
        with suppress(RequestError):
            backend.warm_up(RequestKind(images=1, height=side, width=side))
    except BaseException:
        backend.close()
        raise
    return backend


def _tensorrt(bundle: Bundle, gpu: Gpu, stream: Stream) -> DeviceProvider:
    return TensorRtProvider(bundle, gpu)


def _onnxruntime_cuda(bundle: Bundle, gpu: Gpu, stream: Stream) -> DeviceProvider:
    return OnnxRuntimeCudaProvider(bundle, stream.handle)
