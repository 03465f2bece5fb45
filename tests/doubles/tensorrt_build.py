"""The build side of the TensorRT double: parser, network, configuration, builder.

A build walks the nodes of the ONNX model as TensorRT walks its layers: it looks each up in the
timing cache, reports progress, may be cancelled, and ends in a plan that holds the model itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from tests.doubles.tensorrt_names import (
    BuilderFlag,
    DataType,
    IHostMemory,
    ILogger,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    packed,
    say,
    settings,
)

Shape = tuple[int, ...]
_DTYPES = {
    int(onnx.TensorProto.FLOAT16): DataType.HALF,
    int(onnx.TensorProto.FLOAT): DataType.FLOAT,
    int(onnx.TensorProto.INT32): DataType.INT32,
    int(onnx.TensorProto.BOOL): DataType.BOOL,
}


def Dims(shape: Sequence[int]) -> Shape:
    """A shape."""
    return tuple(int(size) for size in shape)


class ITensor:
    """A tensor of a network; one whose kind the graph does not tell is half."""

    def __init__(self, name: str, kind: int, shape: Shape) -> None:
        self.name, self.shape = name, shape
        self.dtype = _DTYPES.get(kind, DataType.HALF)


class ILayer:
    """A node, or a weight."""

    def __init__(
        self, name: str, type: LayerType, inputs: list[ITensor], outputs: list[ITensor]
    ) -> None:
        self.name, self.type = name, type
        self._inputs, self._outputs = inputs, outputs

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class INetworkDefinition:
    """A parsed model."""

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model: onnx.ModelProto | None = None
        self._path = Path()
        self._tensors: dict[str, ITensor] = {}
        self._layers: list[ILayer] = []

    @property
    def num_inputs(self) -> int:
        return len(self._graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._graph.output)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> ITensor:
        return self._tensors[self._graph.input[index].name]

    def get_output(self, index: int) -> ITensor:
        return self._tensors[self._graph.output[index].name]

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    def _fill(self, model: onnx.ModelProto, path: Path) -> None:
        """Tensors and layers of a model."""
        self._model, self._path = model, path
        single = any(part in path.name for part in settings().single)
        graph = model.graph
        for value in [*graph.value_info, *graph.input, *graph.output]:
            of = value.type.tensor_type
            shape = tuple(d.dim_value or -1 for d in of.shape.dim)
            kind = onnx.TensorProto.FLOAT if single else of.elem_type
            self._tensors[value.name] = ITensor(value.name, kind, shape)
        for weight in graph.initializer:
            tensor = ITensor(weight.name, weight.data_type, tuple(weight.dims))
            self._tensors[weight.name] = tensor
            self._layers.append(ILayer(weight.name, LayerType.CONSTANT, [], [tensor]))
        for node in graph.node:
            inputs = [self._tensors[name] for name in node.input if name]
            for name in node.output:
                self._tensors.setdefault(name, ITensor(name, 0, (-1,)))
            outputs = [self._tensors[name] for name in node.output]
            self._layers.append(ILayer(node.name, LayerType.SHUFFLE, inputs, outputs))

    @property
    def _graph(self) -> onnx.GraphProto:
        assert self._model is not None, "nothing was parsed into this network"
        return self._model.graph


class ParserError:
    """An error at a node."""

    def __init__(self, index: int, node: onnx.NodeProto, desc: str) -> None:
        self._index, self._node, self._desc = index, node, desc

    def desc(self) -> str:
        return self._desc

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class OnnxParser:
    """Reads an ONNX file with its weights."""

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        assert isinstance(model, str), "the real parser takes no Path"
        path = Path(model)
        loaded = onnx.load(path)
        if _failure(path) == "parser":
            node = loaded.graph.node[3]
            self._errors.append(ParserError(3, node, "no importer registered for op"))
            return False
        self._network._fill(loaded, path)
        return True


class IOptimizationProfile:
    """Ranges of shapes."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
        self._valid = True

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:
        self._valid &= all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self._shapes[input] = (min, opt, max)

    def __bool__(self) -> bool:
        return self._valid


class ITimingCache:
    """Which layers were timed, on which GPU and version."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps(self._content, sort_keys=True).encode())


class IBuilderConfig:
    """How to build."""

    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.max_aux_streams = -1
        self.profiling_verbosity: Any = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: Any = None
        self._flags = {BuilderFlag.TF32}
        self._limits: dict[Any, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._cache = ITimingCache(_fresh_cache())

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool in MemoryPoolType
        self._limits[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if not serialized_timing_cache:
            return ITimingCache(_fresh_cache())
        try:
            return ITimingCache(json.loads(serialized_timing_cache))
        except ValueError:
            return None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:  # noqa: FBT001
        fits = all(cache._content[key] == _fresh_cache()[key] for key in ("device", "version"))
        if fits or ignore_mismatch:
            self._cache = cache
        return fits or ignore_mismatch

    def get_timing_cache(self) -> ITimingCache:
        return self._cache


class IProgressMonitor:
    """Base of progress monitors."""

    def __init__(self) -> None:
        self._initialized = True

    def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class Builder:
    """Builds where there is a GPU."""

    def __init__(self, logger: Any) -> None:
        if settings().no_gpu:
            say(logger, ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        wanted, path = settings(), network._path
        strong = network._flags & (1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        if wanted.major < 11 and not strong:
            return self._nothing("a weakly typed network: precision is anybody's guess")
        tensors = [network.get_input(index) for index in range(network.num_inputs)]
        inputs = {tensor.name for tensor in tensors}
        static = all(-1 not in tensor.shape for tensor in tensors)
        profiles = [set(profile._shapes) for profile in config._profiles]
        if static != (not profiles) or any(each != inputs for each in profiles):
            return self._nothing("Network has dynamic or shape inputs, but no profile")
        failure, level = _failure(path), config.builder_optimization_level
        if wanted.memory_above_level is not None and level > wanted.memory_above_level:
            failure = "memory"
        if not self._walk(network, config, failure):
            return None
        if failure == "memory":
            return self._nothing("Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)")
        if failure:
            return self._nothing("Error Code 10: Could not find any implementation for node")
        return self._plan(network, config)

    def _walk(self, network: INetworkDefinition, config: IBuilderConfig, failure: str) -> bool:
        """Time every layer; False if the monitor cancels."""
        monitor, nodes = config.progress_monitor, network._graph.node
        if monitor is not None:
            assert monitor._initialized
            monitor.phase_start("Building Engine", None, 2)
            monitor.phase_start("Timing graph nodes", "Building Engine", len(nodes))
        timed = config._cache._content["timed"]
        hits = 0
        for step, node in enumerate(nodes):
            if failure == "crash" and step == len(nodes) // 2:
                os._exit(139)
            hits += node.op_type in timed
            timed[node.op_type] = timed.get(node.op_type, 0) + 1
            for _ in range(1 + round(settings().layer_s / 0.1)):
                time.sleep(0.1 if settings().layer_s else 0)
                if monitor is not None and not monitor.step_complete("Timing graph nodes", step):
                    return False
        if monitor is not None:
            monitor.phase_finish("Timing graph nodes")
            for step in range(2):
                monitor.step_complete("Building Engine", step)
            monitor.phase_finish("Building Engine")
        say(self._logger, ILogger.VERBOSE, "more than anybody reads")
        say(self._logger, ILogger.INFO, f"{hits} of {len(nodes)} from the timing cache")
        return True

    def _plan(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory:
        wanted = settings()
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        fixed = {tensor.name: (tensor.shape,) * 3 for tensor in inputs}
        header = {
            "version": wanted.version,
            "architecture": wanted.architecture,
            "file": network._path.name,
            "profiles": [profile._shapes for profile in config._profiles] or [fixed],
            "static": not config._profiles,
            "detailed": config.profiling_verbosity.name == "DETAILED",
            "aux_streams": config.max_aux_streams,
            "level": config.builder_optimization_level,
            "tf32": BuilderFlag.TF32 in config._flags,
            "workspace_nbytes": config._limits.get(MemoryPoolType.WORKSPACE),
        }
        assert network._model is not None
        return packed(header, network._model.SerializeToString())

    def _nothing(self, reason: str) -> IHostMemory | None:
        say(self._logger, ILogger.ERROR, reason)
        return None


def _fresh_cache() -> dict[str, Any]:
    wanted = settings()
    return {"device": wanted.architecture, "version": wanted.version, "timed": {}}


def _failure(path: Path) -> str:
    failures = settings().fail
    return next((how for part, how in failures.items() if part in path.name), "")
