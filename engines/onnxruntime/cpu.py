"""ONNX Runtime's CPU provider as an engine, on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.blame import raised_within
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, Component
from engines.engine import Array, Provider, check_buffers
from engines.errors import ContractError
from engines.onnxruntime.library import (
    CPU_PROVIDER,
    onnxruntime_with,
    opened_session,
    session_dtypes,
)
from engines.onnxruntime.pool import POOL
from engines.system.heap import trim_heap
from engines.threads import processors

# 8-bit products as their graph says, in float32 from dequantized numbers: this provider is what
# others are compared with, and every processor's own 8-bit kernels round differently.
_QDQ_AS_WRITTEN = ("session.disable_quant_qdq", "1")
# Unless they share a pool (pool.py), every session has threads of its own, which wait while others
# compute: the encoders, which run once a picture, get no more than they profit from.
_MOST_THREADS = {Component.TEXT_ENCODER: 4, Component.IMAGE_ENCODER: 8, Component.FUSION_MLP: 1}


class OnnxRuntimeEngine:
    """A component in an ONNX Runtime session with its buffers bound."""

    def __init__(self, component: Component, onnx_path: Path, threads: int | None = None) -> None:
        """Load a graph.

        threads: processor cores to use, by default all, fewer for the encoders. Raises
        ProviderUnavailableError if ONNX Runtime or its CPU provider is not installed,
        BundleCorruptError if the file does not load, ContractError if its tensors are not the
        contract's.
        """
        ort = onnxruntime_with(CPU_PROVIDER)
        self.component = component
        self.provider = str(Provider.ONNXRUNTIME_CPU)
        options = ort.SessionOptions()
        most = threads or processors()
        own = min(most, _MOST_THREADS[component]) if component in _MOST_THREADS else threads
        POOL.give(ort, options, most, own)
        options.add_session_config_entry(*_QDQ_AS_WRITTEN)
        self._session = opened_session(ort, component, onnx_path, options, [CPU_PROVIDER])
        self._dtypes = session_dtypes(self._session)
        self._binding = self._session.io_binding()
        self._buffers: Mapping[str, Array] = {}

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._dtypes

    def bind(self, buffers: Mapping[str, Array]) -> None:
        contract = CONTRACTS[self.component]
        check_buffers(self.component, self._dtypes, buffers)
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for tensor in contract.tensors:
            buffer = buffers[tensor.name]
            is_input = tensor in contract.inputs
            bind = self._binding.bind_input if is_input else self._binding.bind_output
            bind(tensor.name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)
        self._buffers = dict(buffers)

    def enqueue(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            if not raised_within(error, {"onnxruntime"}):
                raise
            shapes = {name: buffer.shape for name, buffer in self._buffers.items()}
            raise ContractError(f"{self.component} cannot run on {shapes}: {error}") from error

    def close(self) -> None:
        self._buffers = {}
        del self._binding, self._session
        trim_heap()


def open_on_cpu(
    bundle: Bundle, component: Component, threads: int | None = None
) -> OnnxRuntimeEngine:
    """Open a component of a bundle on the CPU provider, computing in float32."""
    path = bundle.model(bundle.component(component).cpu_onnx, Provider.ONNXRUNTIME_CPU)
    return OnnxRuntimeEngine(component, path, threads)


def session_in_memory(graph: bytes, weights: Path) -> Any:
    """A session of a graph in memory, for measurements: any tensor may be among its outputs.

    weights: the folder of its weights file. 8-bit products are computed as their graph says.
    Raises ProviderUnavailableError if ONNX Runtime or its CPU provider is not installed.
    """
    ort = onnxruntime_with(CPU_PROVIDER)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    POOL.give(ort, options, processors(), None)
    options.add_session_config_entry(*_QDQ_AS_WRITTEN)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(weights)
    )
    return ort.InferenceSession(graph, options, providers=[CPU_PROVIDER])
