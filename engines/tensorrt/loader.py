"""From a plan to an engine: deserialized, and given its weights where it was built without."""

from __future__ import annotations

from pathlib import Path

from engines.errors import BundleCorruptError, ProviderUnavailableError
from engines.plans.plan_from_onnx import parser_errors
from engines.tensorrt import vendor
from engines.tensorrt.library import TensorRt, accepted


def engine_from_plan(
    trt: TensorRt, logger: vendor.ILogger, plan: bytes, name: str, weights: Path | None = None
) -> vendor.ICudaEngine:
    """Deserialize a plan on the current GPU.

    weights: the ONNX file that a plan without weights takes them from. Raises
    ProviderUnavailableError without a GPU, BundleCorruptError if TensorRT does not take the plan.
    """
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:
        raise ProviderUnavailableError(
            f"TensorRT {trt.__version__} finds no GPU or driver it can use; check: nvidia-smi"
        ) from error
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleCorruptError(
            f"TensorRT {trt.__version__} does not take the plan {name}: it is damaged, or of "
            "another version or GPU; build it again: python -m engines.build BUNDLE"
        )
    if weights is not None:
        refitter = trt.Refitter(engine, logger)
        parser = trt.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(weights)):
            raise BundleCorruptError(
                f"the weights of {weights} do not fit the plan {name}: {parser_errors(parser)}; "
                "build it again: python -m engines.build BUNDLE"
            )
        accepted(refitter.refit_cuda_engine(), f"the weights of {weights} for the plan {name}")
    return engine
