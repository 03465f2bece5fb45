"""ONNX Runtime as an engine: sessions, and the CPU provider, on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from engines.blame import raised_within
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, Component
from engines.engine import Array, Provider, check_buffers
from engines.errors import BundleCorruptError, ContractError, ProviderUnavailableError
from engines.heap import trim_heap
from engines.threads import processors

CPU_PROVIDER = "CPUExecutionProvider"

# Every session has threads of its own, which wait while others compute: the encoders, which run
# once a picture, get no more than they profit from. (The pool that sessions can share exists once
# a process, and then no session may have its own, not even the application's.)
_MOST_THREADS = {Component.TEXT_ENCODER: 4, Component.IMAGE_ENCODER: 8, Component.FUSION_MLP: 1}

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(bool)": np.dtype(np.bool_),
}


class OnnxRuntimeEngine:
    """A component in an ONNX Runtime session with its buffers bound."""

    def __init__(self, component: Component, onnx_path: Path, threads: int | None = None) -> None:
        """Load a graph.

        threads: processor cores to use, by default all, fewer for the encoders. Raises
        ProviderUnavailableError if ONNX Runtime or its CPU provider is not installed,
        BundleCorruptError if the file does not load, ContractError if its tensors are not the
        contract's.
        """
        ort = onnxruntime_with(CPU_PROVIDER, "pip install --force-reinstall onnxruntime")
        self.component = component
        self.provider = str(Provider.ONNXRUNTIME_CPU)
        options = ort.SessionOptions()
        if component in _MOST_THREADS:
            threads = min(threads or processors(), _MOST_THREADS[component])
        if threads is not None:
            options.intra_op_num_threads = threads
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
    path = bundle.path / bundle.component(component).cpu_onnx
    return OnnxRuntimeEngine(component, path, threads)


def opened_session(
    ort: ModuleType, component: Component, onnx_path: Path, options: Any, providers: list[Any]
) -> Any:
    """Load a graph; raises BundleCorruptError, or ContractError for other tensors."""
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(onnx_path, options, providers=providers)
    except Exception as error:
        # ONNX Runtime raises a family of unrelated classes, all of which mean: not this file.
        if not raised_within(error, {"onnxruntime"}):
            raise
        raise BundleCorruptError(
            f"{onnx_path} does not load: {error}; check the bundle with: "
            f"python -m engines.verify {onnx_path.parent.parent}"
        ) from error
    found = list(session_dtypes(session))
    expected = [tensor.name for tensor in CONTRACTS[component].tensors]
    if found != expected:
        raise ContractError(
            f"{onnx_path} has tensors {', '.join(found)}; the contract of {component} says "
            f"{', '.join(expected)}; export it again: python -m export.build"
        )
    return session


def session_dtypes(session: Any) -> dict[str, np.dtype[Any]]:
    """Element type of every tensor, inputs first."""
    tensors = [*session.get_inputs(), *session.get_outputs()]
    return {tensor.name: _DTYPES[tensor.type] for tensor in tensors}


def onnxruntime_with(provider: str, fix: str) -> ModuleType:
    """The module, found to have a provider; else ProviderUnavailableError says what to type."""
    try:
        module = import_module("onnxruntime")
    except ImportError as error:
        extra = "cpu" if provider == CPU_PROVIDER else "gpu"
        raise ProviderUnavailableError(
            f'onnxruntime is not installed; type: pip install "face-diffuser[{extra}]"'
        ) from error
    if provider not in module.get_available_providers():
        found = ", ".join(module.get_available_providers())
        raise ProviderUnavailableError(
            f"this onnxruntime has no {provider}, only {found}; type: {fix}"
        )
    return module
