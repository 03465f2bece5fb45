"""The run side of the TensorRT double: engines that compute through ONNX Runtime.

Device addresses are host addresses. A context's workspace is overwritten at each execution, so a
buffer that overlaps it is noticed. `enqueue` is what `execute_async_v3` does with its work: replace
it to record a capture instead of running at once. `take` is what a plan's weights are on the device
with, from when it is deserialized until nothing refers to it.
"""

from __future__ import annotations

import ctypes
import json
import re
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.doubles.tensorrt_build import Shape
from tests.doubles.tensorrt_names import (
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    LayerInformationFormat,
    say,
    settings,
    unpacked,
)

ALIGNMENT = 256
_HALF, _FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
_NAMES: dict[int, str] = {_HALF: "HALF", _FLOAT: "FLOAT", onnx.TensorProto.INT32: "INT32"}
_NAMES[onnx.TensorProto.BOOL] = "BOOL"


def _run_at_once(stream: int, work: Callable[[], None]) -> None:
    work()


def _take_nothing(nbytes: int) -> Callable[[], Any]:
    return lambda: None


enqueue: Callable[[int, Callable[[], None]], None] = _run_at_once
take: Callable[[int], Callable[[], Any]] = _take_nothing


class Runtime:
    """Deserializes where there is a GPU."""

    def __init__(self, logger: Any) -> None:
        if settings().no_gpu:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        content = unpacked(serialized_engine)
        wanted = settings()
        if content is None:
            return self._nothing("Error Code 1: Serialization (magic tag does not match)")
        header, model = content
        if header["version"] != wanted.version:
            return self._nothing("Error Code 1: Serialization (version tag does not match)")
        if header["architecture"] != wanted.architecture:
            return self._nothing("the engine was built for another compute capability")
        return ICudaEngine(header, model, self._logger)

    def _nothing(self, reason: str) -> ICudaEngine | None:
        say(self._logger, ILogger.ERROR, reason)
        return None


class ICudaEngine:
    """A plan, ready to give contexts."""

    def __init__(self, header: dict[str, Any], model: bytes, logger: Any) -> None:
        self._header, self._logger = header, logger
        weakref.finalize(self, take(len(model)))
        self._model = onnx.load_from_string(model)
        self._profiles = [
            {name: tuple(tuple(shape) for shape in shapes) for name, shapes in profile.items()}
            for profile in header["profiles"]
        ]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    @property
    def device_memory_size_v2(self) -> int:
        indices = range(self.num_optimization_profiles)
        return max(self.get_device_memory_size_for_profile_v2(index) for index in indices)

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return _workspace({n: shapes[2] for n, shapes in self._profiles[profile_index].items()})

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        kind = self._tensors[name].type.tensor_type.elem_type
        return DataType["FLOAT" if self._single else _NAMES[kind]]

    def get_tensor_shape(self, name: str) -> Shape:
        if self._header.get("static") and name in self._profiles[0]:
            return self._profiles[0][name][0]
        dimensions = self._tensors[name].type.tensor_type.shape.dim
        return tuple(dimension.dim_value or -1 for dimension in dimensions)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return list(self._profiles[profile_index][name])

    def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
        return IExecutionContext(self, strategy)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    @property
    def _single(self) -> bool:
        return any(part in self._header["file"] for part in settings().single)

    @property
    def _graph(self) -> onnx.GraphProto:
        return self._model.graph

    @property
    def _tensors(self) -> dict[str, onnx.ValueInfoProto]:
        return {value.name: value for value in [*self._graph.input, *self._graph.output]}


class IExecutionContext:
    """Computes on the addresses it was given."""

    def __init__(self, engine: ICudaEngine, strategy: Any) -> None:
        self._engine, self._strategy = engine, strategy
        self._session: Any = None
        self._profile = 0
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._memory: tuple[int, int] | None = None
        self._sized = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return False
        self._profile, self._shapes, self._sized = profile_index, {}, False
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        smallest, _, largest = self._engine._profiles[self._profile][name]
        inside = len(shape) == len(smallest) and all(
            a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True)
        )
        if inside:
            self._shapes[name], self._sized = tuple(shape), False
        return inside

    def infer_shapes(self) -> list[str]:
        return [v.name for v in self._engine._graph.input if v.name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        sizes: dict[str, int] = {}
        for value in self._engine._graph.input:
            for dimension, size in zip(
                value.type.tensor_type.shape.dim, self._shapes[value.name], strict=True
            ):
                sizes[dimension.dim_param] = size
        shape = []
        for dimension in self._engine._tensors[name].type.tensor_type.shape.dim:
            match = re.fullmatch(r"(\d*)(\w+)", dimension.dim_param)
            assert match is not None or dimension.dim_value
            factor, symbol = match.groups() if match else ("", "")
            shape.append(dimension.dim_value or int(factor or 1) * sizes[symbol])
        return tuple(shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors or not memory:
            return False
        self._addresses[name] = memory
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert not self.infer_shapes(), "asked before all shapes were set"
        self._sized = True
        return _workspace(self._shapes)

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = (memory, size) if memory % ALIGNMENT == 0 else None

    def execute_async_v3(self, stream_handle: int) -> bool:
        reason = self._missing()
        if reason:
            say(self._engine._logger, ILogger.ERROR, reason)
            return False
        if self._session is None:
            assert self._engine._model is not None
            self._session = _session(self._engine._model.SerializeToString())
        # Shapes and addresses are those of this call, whenever the work is done.
        shapes = {name: self.get_tensor_shape(name) for name in self._engine._tensors}
        addresses, memory = dict(self._addresses), self._memory

        def work() -> None:
            views = {name: self._view(name, addresses[name], shapes[name]) for name in shapes}
            if memory is not None and memory[1]:
                ctypes.memset(memory[0], 0xFF, memory[1])
            inputs = {value.name: views[value.name] for value in self._engine._graph.input}
            outputs = [value.name for value in self._engine._graph.output]
            for name, result in zip(outputs, self._session.run(outputs, inputs), strict=True):
                views[name][...] = result * self._drift()

        enqueue(stream_handle, work)
        return True

    def _missing(self) -> str:
        if self.infer_shapes():
            return f"no shape was given for {self.infer_shapes()}"
        if unset := set(self._engine._tensors) - set(self._addresses):
            return f"no address was given for {sorted(unset)}"
        managed = self._strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        whole = self._engine.get_device_memory_size_for_profile_v2(self._profile)
        # Laid out for a profile's largest shapes, unless it was asked for these.
        needed = _workspace(self._shapes) if self._sized else whole
        if managed and (self._memory is None or self._memory[1] < needed):
            return f"device memory {self._memory}, {needed} bytes needed"
        return ""

    def _drift(self) -> Any:
        file = self._engine._header["file"]
        factors = settings().drift
        return np.float32(next((f for part, f in factors.items() if part in file), 1.0))

    def _view(self, name: str, address: int, shape: Shape) -> Any:
        kind = self._engine._tensors[name].type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        nbytes = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


@lru_cache(maxsize=12)
def _session(graph: bytes) -> Any:
    """What computes a graph; it remembers nothing, so contexts, and tests, may share it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class EngineInspector:
    """Describes a layer per node, in the JSON of its version."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: Any = None

    def get_engine_information(self, format: Any) -> str:
        assert format is LayerInformationFormat.JSON
        graph = self._engine._graph
        if settings().unreadable_layers or not self._engine._header["detailed"]:
            return json.dumps({"Layers": [node.name for node in graph.node]})
        kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        kinds |= {n: v.type.tensor_type.elem_type for n, v in self._engine._tensors.items()}
        kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        layers = [
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": [self._described(name, kinds) for name in node.input if name],
                "Outputs": [self._described(name, kinds) for name in node.output],
            }
            for node in graph.node
        ]
        tensors = list(self._engine._tensors)
        listed = {"Bindings": tensors} if settings().major < 11 else {"I/O Tensors": tensors}
        return json.dumps({"Layers": layers} | listed)

    def _described(self, name: str, kinds: dict[str, int]) -> dict[str, Any]:
        known = self.execution_context is not None and not self.execution_context.infer_shapes()
        kind = kinds.get(name, _FLOAT)
        if self._engine._single and kind == _HALF:
            kind = _FLOAT
        short = {int(_HALF): "FP16", int(_FLOAT): "FP32"}.get(kind, "INT64")
        if settings().major >= 11:
            word = {"FP16": "Half", "FP32": "Float"}.get(short, "Int64")
            return {"Name": name, "Format": "Row major linear", "DataType": word}
        text = f"Row major linear {short} format" if known else "N/A due to dynamic shapes"
        return {"Name": name, "Format/Datatype": text}


def _workspace(shapes: dict[str, Shape]) -> int:
    """A size that grows with the shapes, in whole alignments."""
    elements = sum(int(np.prod(shape)) for shape in shapes.values())
    return -(-elements * 8 // ALIGNMENT) * ALIGNMENT
