"""Proof of precision: what TensorRT's own engine inspector says about every layer of a plan."""

from __future__ import annotations

import json
import re
from typing import Any

from engines import commands
from engines.bundle.manifest import Precision
from engines.bundle.plan_record import LayerPrecision
from engines.contract import CONTRACTS, ElementType
from engines.errors import PlanRefusedError
from engines.plans.job import PlanJob
from engines.tensorrt import vendor
from engines.tensorrt.library import TensorRt, accepted, given

# Half of the layers is far below what a half-precision graph gives (its float32 islands are a
# handful) and far above what a float32 one does (none).
LEAST_HALF_SHARE = 0.5

_HALF = re.compile(r"\b(half|fp16)\b", re.IGNORECASE)
_SINGLE = re.compile(r"\b(float|fp32)\b", re.IGNORECASE)


def proven_precision(trt: TensorRt, engine: vendor.ICudaEngine, job: PlanJob) -> LayerPrecision:
    """Count half-precision layers; raises PlanRefusedError if a half graph came out otherwise."""
    _check_tensors(trt, engine, job)
    inspector = engine.create_engine_inspector()
    context = given(
        engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED),
        f"an execution context of {job.name}",
    )
    # Formats of tensors with open dimensions are told only for the shapes of a context.
    accepted(context.set_optimization_profile_async(0, 0), f"optimization profile 0 of {job.name}")
    for name, shapes in job.spec.shapes[0].items():
        accepted(context.set_input_shape(name, shapes[1]), f"{name} {shapes[1]} of {job.name}")
    inspector.execution_context = context
    precision = precision_of(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    if job.precision is Precision.FP16 and precision.half_share < LEAST_HALF_SHARE:
        raise PlanRefusedError(
            f"{job.name} did not come out in half precision: {precision.half_layers} of the "
            f"{precision.layers} layers whose type TensorRT's inspector tells are half, at least "
            f"{LEAST_HALF_SHARE:.0%} must be; the plan is not published; see {job.log}"
        )
    return precision


def precision_of(information: str) -> LayerPrecision:
    """Count the layers of the inspector's JSON, in the form of TensorRT 10 or of 11.

    TensorRT 10 says {"Format/Datatype": "Row major linear FP16 format"} of a tensor, TensorRT 11
    splits that in two fields, one of them named like {"DataType": "Half"}. Layers that give no
    floating-point tensor, or whose tensors the inspector does not describe, are not counted.
    """
    layers = half_layers = 0
    for layer in json.loads(information)["Layers"]:
        if not isinstance(layer, dict):
            continue
        floating = [text for text in map(_types, layer.get("Outputs", [])) if _is_floating(text)]
        layers += bool(floating)
        half_layers += bool(floating) and all(_HALF.search(text) for text in floating)
    return LayerPrecision(layers=layers, half_layers=half_layers)


def _types(tensor: dict[str, Any]) -> str:
    """All that is said of a tensor's element type and format."""
    fields = [str(v) for k, v in tensor.items() if re.fullmatch(r"(?i)(format|data ?type|/)+", k)]
    return " ".join(fields)


def _is_floating(text: str) -> bool:
    return bool(_HALF.search(text) or _SINGLE.search(text))


def _check_tensors(trt: TensorRt, engine: vendor.ICudaEngine, job: PlanJob) -> None:
    """An engine whose own inputs and outputs are in another precision is not what was asked for."""
    half = job.precision is Precision.FP16
    expected = trt.DataType.HALF if half else trt.DataType.FLOAT
    for tensor in CONTRACTS[job.spec.component].tensors:
        found = engine.get_tensor_dtype(tensor.name)
        if tensor.element_type is ElementType.FLOAT and found != expected:
            raise PlanRefusedError(
                f"{job.name} takes {tensor.name} as {found}, expected {expected}; "
                "the plan is not published; export the model again",
                fix=commands.typed(commands.BUILD, "--fp16"),
            )
