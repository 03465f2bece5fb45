"""ONNX Runtime: the one place that imports it, looks for a provider in it and opens sessions."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from engines import commands
from engines.blame import raised_within
from engines.contract import CONTRACTS, Component
from engines.errors import (
    BundleCorruptError,
    ContractError,
    NotInstalledError,
    ProviderUnavailableError,
)

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

_EXTRAS = {CPU_PROVIDER: "cpu", CUDA_PROVIDER: "gpu"}
# What puts a module with the provider in the place of one without. The package for CPUs and the one
# for GPUs hold the same module, so whichever was installed last hides the other.
PACKAGES = {
    CPU_PROVIDER: "pip install --force-reinstall onnxruntime",
    CUDA_PROVIDER: "pip uninstall -y onnxruntime onnxruntime-gpu && "
    'pip install "onnxruntime-gpu[cuda,cudnn]>=1.25"',
}

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(bool)": np.dtype(np.bool_),
}


def onnxruntime_with(provider: str) -> ModuleType:
    """The module, found to have one of the two providers.

    Raises NotInstalledError, ProviderUnavailableError.
    """
    try:
        module = import_module("onnxruntime")
    except ImportError as error:
        raise NotInstalledError(
            "onnxruntime is not installed; type", fix=commands.installed(_EXTRAS[provider])
        ) from error
    if provider not in module.get_available_providers():
        found = ", ".join(module.get_available_providers())
        raise ProviderUnavailableError(
            f"this onnxruntime has no {provider}, only {found}; type", fix=PACKAGES[provider]
        )
    return module


def opened_session(
    ort: ModuleType, component: Component, onnx_path: Path, options: Any, providers: list[Any]
) -> Any:
    """Load a graph of a bundle; raises BundleCorruptError, or ContractError for other tensors."""
    options.log_severity_level = 3
    bundle = onnx_path.parent.parent
    try:
        # Its own fallback opens another provider, and tells it on stdout.
        session = ort.InferenceSession(onnx_path, options, providers=providers, enable_fallback=0)
    except Exception as error:
        # ONNX Runtime raises a family of unrelated classes, all of which mean: not this file.
        if not raised_within(error, {"onnxruntime"}):
            raise
        if options.use_per_session_threads and "use_per_session_threads" in str(error):
            # The application gave all sessions of its process one pool of threads.
            options.use_per_session_threads = False
            return opened_session(ort, component, onnx_path, options, providers)
        raise BundleCorruptError(
            f"{onnx_path} does not load: {error}; check the bundle with",
            fix=commands.verified(bundle),
        ) from error
    found = list(session_dtypes(session))
    expected = [tensor.name for tensor in CONTRACTS[component].tensors]
    if found != expected:
        raise ContractError(
            f"{onnx_path} has tensors {', '.join(found)}; the contract of {component} says "
            f"{', '.join(expected)}; export it again",
            fix=commands.rebuilt(bundle),
        )
    return session


def session_dtypes(session: Any) -> dict[str, np.dtype[Any]]:
    """Element type of every tensor, inputs first."""
    tensors = [*session.get_inputs(), *session.get_outputs()]
    return {tensor.name: _DTYPES[tensor.type] for tensor in tensors}
