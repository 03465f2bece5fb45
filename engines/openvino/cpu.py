"""OpenVINO as an engine: float32, or bfloat16 on the processors that multiply in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from engines import commands
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component
from engines.engine import Array, HostPrecision, Provider, check_buffers
from engines.errors import BundleCorruptError, ContractError, NotInstalledError
from engines.openvino.compiled import Blob, CompiledFile
from engines.system.heap import trim_heap

_DEVICE = "CPU"
Settings = dict[str, str]


class OpenVinoEngine:
    """A component compiled by OpenVINO for the CPU, with its buffers bound.

    A U-Net computes in the precision that is asked for, everything else in float32. The sines and
    cosines of a U-Net's timestep stay in float32, as PyTorch keeps them under autocast: angles
    reach 999 radians, where bfloat16's steps are 4, and they are most of the error otherwise
    (relative L2 of a full-size U-Net on random weights 3.2e-2 without, 1.3e-2 with it).
    """

    def __init__(
        self,
        component: Component,
        onnx_path: Path,
        threads: int | None = None,
        precision: HostPrecision = HostPrecision.FLOAT32,
        kept: CompiledFile | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Load a graph of standard operators.

        threads: processor cores to use, by default all. precision: of a U-Net. kept: where its
        compiled models are kept. check: raises where the graph is not what its name there says.
        Raises NotInstalledError, and BundleCorruptError if the file does not load.
        """
        self.component = component
        self.provider = str(Provider.OPENVINO)
        core = openvino().Core()
        in_half = precision is HostPrecision.BFLOAT16 and component in NOISE_PREDICTORS
        settings = [_settings(threads, in_bfloat16=in_half), _settings(1, in_bfloat16=False)]
        self._blobs = None if kept is None else kept.read()
        models = None if self._blobs is None else _imported(core, self._blobs, settings)
        if models is None:
            models = _compiled(core, component, onnx_path, settings)
            if kept is not None:
                # Kept under the digest that the graph should have: only what has it may be.
                check()
                kept.write([_exported(each) for each in models])
        requests = [each.create_infer_request() for each in models]
        self._request, self._island = requests[0], requests[1] if requests[1:] else None
        found = {
            name: np.dtype(port.element_type.to_dtype())
            for request in requests
            for port in [*request.model_inputs, *request.model_outputs]
            for name in port.names
        }
        self._dtypes = {each.name: found[each.name] for each in CONTRACTS[component].tensors}
        trim_heap()

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._dtypes

    def bind(self, buffers: Mapping[str, Array]) -> None:
        check_buffers(self.component, self._dtypes, buffers)
        tensor_of = openvino().Tensor
        tensors = {name: tensor_of(each, shared_memory=True) for name, each in buffers.items()}
        if self._island is not None:
            self._island.set_tensor("timestep", tensors.pop("timestep"))
            for index in range(len(self._island.model_outputs)):
                wave = self._island.get_output_tensor(index)
                self._request.set_tensor(_wave_name(index), wave)
        for name, tensor in tensors.items():
            self._request.set_tensor(name, tensor)

    def enqueue(self) -> None:
        try:
            if self._island is not None:
                self._island.infer()
            self._request.infer()
        except RuntimeError as error:
            raise ContractError(f"{self.component} cannot run: {error}") from error

    def close(self) -> None:
        self._island = None
        del self._request
        self._blobs = None
        trim_heap()


def open_on_openvino(
    bundle: Bundle,
    component: Component,
    threads: int | None = None,
    precision: HostPrecision = HostPrecision.FLOAT32,
) -> OpenVinoEngine:
    """Open a component of a bundle on OpenVINO."""
    record = bundle.component(component)
    path = bundle.model(record.onnx, Provider.OPENVINO)
    kept = CompiledFile.of(
        (openvino().__version__, component, record.onnx_digest(), threads, precision)
    )
    return OpenVinoEngine(
        component, path, threads, precision, kept, partial(bundle.verify_component, component)
    )


def openvino() -> ModuleType:
    """The module; raises NotInstalledError."""
    try:
        return import_module("openvino")
    except ImportError as error:
        raise NotInstalledError(
            "openvino is not installed; type", fix=commands.installed("openvino")
        ) from error


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; whether that is faster must be measured."""
    capabilities = openvino().Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def _with_float32_ends(model: Any) -> Any:
    """The model taking and giving float32 where its own element type is half."""
    ov = openvino()
    ends = ov.preprocess.PrePostProcessor(model)
    for port in model.inputs:
        if port.element_type == ov.Type.f16:
            ends.input(port.any_name).tensor().set_element_type(ov.Type.f32)
    for port in model.outputs:
        ends.output(port.any_name).tensor().set_element_type(ov.Type.f32)
    return ends.build()


def _time_island(model: Any) -> Any | None:
    """Cut the timestep's sines and cosines out of a U-Net, which then takes them as inputs."""
    ov = openvino()
    waves = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Sin", "Cos")]
    if not waves:
        return None
    ports, taken = [wave.output(0) for wave in waves], []
    for index, port in enumerate(ports):
        readers = port.get_target_inputs()
        parameter = ov.opset13.parameter(port.get_partial_shape(), ov.Type.f32)
        parameter.output(0).set_names({_wave_name(index)})
        for reader in readers:
            reader.replace_source_output(parameter.output(0))
        taken.append(parameter)
    (timestep,) = (
        node for node in model.get_parameters() if "timestep" in node.output(0).get_names()
    )
    model.remove_parameter(timestep)
    model.add_parameters(taken)
    return ov.Model(ports, [timestep], "timestep waves")


def _wave_name(index: int) -> str:
    return f"timestep_wave.{index}"


def _compiled(
    core: Any, component: Component, onnx_path: Path, settings: list[Settings]
) -> list[Any]:
    """A graph's compiled model, and that of its timestep's waves where it has any."""
    try:
        model = _with_float32_ends(core.read_model(onnx_path))
        island = _time_island(model) if component in NOISE_PREDICTORS else None
        models = [model] if island is None else [model, island]
        return [
            core.compile_model(each, _DEVICE, told)
            for each, told in zip(models, settings, strict=False)
        ]
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BundleCorruptError(
            f"OpenVINO cannot load {onnx_path}: {reason}; check the bundle with",
            fix=commands.verified(onnx_path.parent.parent),
        ) from error


def _imported(core: Any, blobs: list[Blob], settings: list[Settings]) -> list[Any] | None:
    """What was compiled before, read in place; None where this OpenVINO does not take it."""
    tensor_of = openvino().Tensor
    try:
        return [
            core.import_model(tensor_of(blob, shared_memory=True), _DEVICE, told)
            for blob, told in zip(blobs, settings, strict=False)
        ]
    except RuntimeError:
        return None


def _exported(model: Any) -> memoryview:
    stream = io.BytesIO()
    model.export_model(stream)
    return stream.getbuffer()


def _settings(threads: int | None, *, in_bfloat16: bool) -> Settings:
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bfloat16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return settings
