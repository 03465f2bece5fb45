"""Every tensor of a half-precision graph against the float32 graph, by Polygraphy's comparator."""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import onnx
from polygraphy import constants
from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER

from engines.gate import Array, relative_l2
from engines.tensorrt.libraries import TENSORRT
from engines.tensorrt.library import load
from export.bisect.islands import rounded

G_LOGGER.module_severity = G_LOGGER.CRITICAL


class Backend(StrEnum):
    """What computes the half-precision graph."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


@dataclass(frozen=True)
class TensorError:
    """How far a tensor is from float32 (relative L2; infinite where it is not finite)."""

    error: float
    bound: float

    def __bool__(self) -> bool:
        return self.error <= self.bound


def tensor_errors(
    half: onnx.ModelProto,
    single: onnx.ModelProto,
    inputs: dict[str, Array],
    bound: float,
    backend: Backend = Backend.ONNXRUNTIME,
    outputs: list[str] | None = None,
) -> dict[str, TensorError]:
    """Error of every floating-point tensor that both graphs have, or of the named ones.

    half, single: graphs with their weights inside; each takes those inputs that it has. Marking
    every tensor as an output keeps TensorRT from fusing layers, so a drift that only a fused kernel
    has does not show here. Raises ProviderUnavailableError without TensorRT.
    """
    marked: Any = constants.MARK_ALL if outputs is None else outputs
    reference = _onnxruntime_runner("float32", single, marked)
    tested = (
        _onnxruntime_runner("half", rounded(half), marked)
        if backend is Backend.ONNXRUNTIME
        else _tensorrt_runner(half, marked, inputs)
    )
    # Polygraphy reports on stdout, which belongs to the caller.
    with contextlib.redirect_stdout(io.StringIO()):
        return _compared(tested, reference, _fitting(inputs, half), _fitting(inputs, single), bound)


def _compared(
    tested: Any,
    reference: Any,
    half_inputs: dict[str, Array],
    single_inputs: dict[str, Array],
    bound: float,
) -> dict[str, TensorError]:
    """Run two runners, each on inputs of its own element types, and compare by tensor name."""
    errors: OrderedDict[str, TensorError] = OrderedDict()

    def compare(first: Any, second: Any) -> OrderedDict[str, TensorError]:
        for name in first:
            if name in second and np.issubdtype(np.asarray(first[name]).dtype, np.floating):
                errors[name] = _error(first[name], second[name], bound)
        return errors

    results = Comparator.run([tested], data_loader=[half_inputs])
    results.extend(Comparator.run([reference], data_loader=[single_inputs]))
    Comparator.compare_accuracy(results, compare_func=compare)
    return errors


def _error(found: Array, expected: Array, bound: float) -> TensorError:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if not np.isfinite(found).all():
        return TensorError(float("inf"), bound)
    if not np.any(expected):
        return TensorError(float(np.linalg.norm(found)), bound)
    return TensorError(relative_l2(found, expected), bound)


def _fitting(inputs: dict[str, Array], graph: onnx.ModelProto) -> dict[str, Array]:
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.graph.input}
    return {
        name: array.astype(onnx.helper.tensor_dtype_to_np_dtype(kinds[name]))
        for name, array in inputs.items()
        if name in kinds
    }


def _onnxruntime_runner(name: str, model: onnx.ModelProto, marked: Any) -> OnnxrtRunner:
    graph = BytesFromOnnx(ModifyOutputs(model, outputs=marked, copy=True))
    return OnnxrtRunner(SessionFromOnnx(graph, providers=["cpu"]), name=name)


def _tensorrt_runner(model: onnx.ModelProto, marked: Any, inputs: dict[str, Array]) -> Any:
    load(TENSORRT)
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineFromNetwork,
        ModifyNetworkOutputs,
        NetworkFromOnnxBytes,
        Profile,
        TrtRunner,
    )

    profile = Profile()
    for name, array in inputs.items():
        profile.add(name, array.shape, array.shape, array.shape)
    network = NetworkFromOnnxBytes(model.SerializeToString(), strongly_typed=True)
    network = ModifyNetworkOutputs(network, outputs=marked)
    config = CreateConfig(profiles=[profile], tf32=False)
    return TrtRunner(EngineFromNetwork(network, config), name="half")
