"""Every provider: what opens it, and what it needs. The one table that all who ask read.

An opener imports its engines when it is called: a process that draws on the CPU loads nothing of a
GPU's, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.cuda.gpu import Gpu, Stream
from engines.engine import DeviceProvider, Engine, HostPrecision, Provider

# Of a bundle and a component, on so many threads (None: all), a U-Net in this precision.
OpenEngine = Callable[[Bundle, Component, int | None, HostPrecision], Engine]
OpenProvider = Callable[[Bundle, Gpu, Stream], DeviceProvider]


@dataclass(frozen=True, kw_only=True)
class HostProvider:
    """Computes on the host.

    open: also takes the U-Nets' precision. library: imports its library; raises
    ProviderUnavailableError. precisions: those that it has on this processor; raises as well.
    """

    open: OpenEngine
    library: Callable[[], object]
    precisions: Callable[[], tuple[HostPrecision, ...]]


@dataclass(frozen=True, kw_only=True)
class GpuProvider:
    """Computes on a GPU, between our kernels.

    library: imports its library; raises ProviderUnavailableError. extra: what of this toolkit
    installs it. from_plans: whether it runs the bundle's plans rather than its ONNX models.
    """

    open: OpenProvider
    library: Callable[[], object]
    extra: str
    from_plans: bool


def _tensorrt(bundle: Bundle, gpu: Gpu, stream: Stream) -> DeviceProvider:
    from engines.tensorrt.provider import TensorRtProvider

    return TensorRtProvider(bundle, gpu)


def _tensorrt_library() -> object:
    from engines.tensorrt.libraries import TENSORRT
    from engines.tensorrt.library import load

    return load(TENSORRT)


def _tensorrt_rtx(bundle: Bundle, gpu: Gpu, stream: Stream) -> DeviceProvider:
    from engines.plans.proofs.on_gpu import compared
    from engines.tensorrt.rtx_provider import RtxProvider

    return RtxProvider(bundle, gpu, compared)


def _tensorrt_rtx_library() -> object:
    from engines.tensorrt.libraries import TENSORRT_RTX
    from engines.tensorrt.library import load

    return load(TENSORRT_RTX)


def _onnxruntime_cuda(bundle: Bundle, gpu: Gpu, stream: Stream) -> DeviceProvider:
    from engines.onnxruntime.cuda import OnnxRuntimeCudaProvider

    return OnnxRuntimeCudaProvider(bundle, gpu.cuda_version, stream.handle)


def _onnxruntime_cuda_library() -> object:
    from engines.onnxruntime.release import onnxruntime_on_gpu

    return onnxruntime_on_gpu()


def _onnxruntime_cpu(
    bundle: Bundle, component: Component, threads: int | None, precision: HostPrecision
) -> Engine:
    from engines.onnxruntime.cpu import open_on_cpu

    assert precision is HostPrecision.FLOAT32, "ONNX Runtime has no bfloat16 kernels for CPUs"
    return open_on_cpu(bundle, component, threads)


def _onnxruntime_cpu_library() -> object:
    from engines.onnxruntime.library import CPU_PROVIDER, onnxruntime_with

    return onnxruntime_with(CPU_PROVIDER)


def _onnxruntime_cpu_precisions() -> tuple[HostPrecision, ...]:
    _onnxruntime_cpu_library()
    return (HostPrecision.FLOAT32,)


def _openvino(
    bundle: Bundle, component: Component, threads: int | None, precision: HostPrecision
) -> Engine:
    from engines.openvino.cpu import open_on_openvino

    return open_on_openvino(bundle, component, threads, precision)


def _openvino_library() -> object:
    from engines.openvino.cpu import openvino

    return openvino()


def _openvino_precisions() -> tuple[HostPrecision, ...]:
    from engines.openvino.cpu import has_bfloat16

    return tuple(HostPrecision) if has_bfloat16() else (HostPrecision.FLOAT32,)


GPU_PROVIDERS: Mapping[Provider, GpuProvider] = {
    Provider.TENSORRT: GpuProvider(
        open=_tensorrt, library=_tensorrt_library, extra="tensorrt", from_plans=True
    ),
    Provider.TENSORRT_RTX: GpuProvider(
        open=_tensorrt_rtx, library=_tensorrt_rtx_library, extra="tensorrt-rtx", from_plans=True
    ),
    Provider.ONNXRUNTIME_CUDA: GpuProvider(
        open=_onnxruntime_cuda, library=_onnxruntime_cuda_library, extra="gpu", from_plans=False
    ),
}
HOST_PROVIDERS: Mapping[Provider, HostProvider] = {
    Provider.ONNXRUNTIME_CPU: HostProvider(
        open=_onnxruntime_cpu,
        library=_onnxruntime_cpu_library,
        precisions=_onnxruntime_cpu_precisions,
    ),
    Provider.OPENVINO: HostProvider(
        open=_openvino, library=_openvino_library, precisions=_openvino_precisions
    ),
}
PROVIDERS: Mapping[Provider, GpuProvider | HostProvider] = {**GPU_PROVIDERS, **HOST_PROVIDERS}
