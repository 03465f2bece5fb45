"""From a plan to an engine."""

from __future__ import annotations

from typing import cast

from engines.errors import BundleCorruptError, ProviderUnavailableError
from engines.tensorrt import vendor, vendor_rtx
from engines.tensorrt.libraries import TENSORRT_RTX, Library
from engines.tensorrt.library import TensorRt, TensorRtRtx


def engine_from_plan(
    library: Library, trt: TensorRt, logger: vendor.ILogger, plan: bytes, name: str
) -> vendor.ICudaEngine:
    """Deserialize a plan on the current GPU.

    Raises ProviderUnavailableError without a GPU, BundleCorruptError if TensorRT does not take it.
    """
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:
        raise _no_gpu(library, trt) from error
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        if library is TENSORRT_RTX and _misses_driver(cast(TensorRtRtx, trt), runtime, plan):
            raise _no_gpu(library, trt)
        raise BundleCorruptError(
            f"{library.title} {trt.__version__} does not take the plan {name}: it is damaged, or "
            "of another version or GPU"
        )
    return engine


def _no_gpu(library: Library, trt: TensorRt) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        f"{library.title} {trt.__version__} finds no GPU or driver it can use; check",
        fix="nvidia-smi",
    )


def _misses_driver(rtx: TensorRtRtx, runtime: vendor.Runtime, plan: bytes) -> bool:
    """Whether the runtime has nothing against a plan but that it cannot ask a GPU about it.

    With a GPU, a plan whose header is in order is valid, whatever is wrong with the rest of it.
    """
    validity, diagnostics = cast(vendor_rtx.RtxRuntime, runtime).get_engine_validity(plan)
    return validity == rtx.EngineValidity.INVALID and diagnostics == 0
