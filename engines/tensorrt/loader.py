"""From a plan to an engine."""

from __future__ import annotations

from engines.errors import BundleCorruptError, ProviderUnavailableError
from engines.tensorrt import vendor
from engines.tensorrt.library import TensorRt


def engine_from_plan(
    trt: TensorRt, logger: vendor.ILogger, plan: bytes, name: str
) -> vendor.ICudaEngine:
    """Deserialize a plan on the current GPU.

    Raises ProviderUnavailableError without a GPU, BundleCorruptError if TensorRT does not take it.
    """
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:
        raise ProviderUnavailableError(
            f"TensorRT {trt.__version__} finds no GPU or driver it can use; check",
            fix="nvidia-smi",
        ) from error
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleCorruptError(
            f"TensorRT {trt.__version__} does not take the plan {name}: it is damaged, or of "
            "another version or GPU"
        )
    return engine
