"""ONNX Runtime's CUDA provider on device buffers: the GPU backend without TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.weights import WeightCheck
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component
from engines.engine import DeviceNeed, DeviceTensor, Provider
from engines.errors import (
    BundleCorruptError,
    ContractError,
    DeviceMemoryError,
    FaceDiffuserError,
    ProviderUnavailableError,
)
from engines.onnxruntime.library import CUDA_PROVIDER, PACKAGES, opened_session, session_dtypes
from engines.onnxruntime.placement import PlacedSession
from engines.onnxruntime.release import onnxruntime_on_gpu

# By name of the provider's setting. No TF32, as in TensorRT's plans: its products have 11 bits. The
# arena grows by what is asked for, not to the next power of two, which may be twice a U-Net.
SETTINGS = {"device_id": "0", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
# Weights lie beside the arena, so that it holds activations alone.
SESSION_ENTRIES = {"session.use_device_allocator_for_initializers": "1"}


class OnnxRuntimeCudaEngine:
    """One binding of a session that others may share.

    Not capturable: whether a run waits for the host or allocates is ONNX Runtime's own affair. Its
    activation memory is, too.
    """

    provider = str(Provider.ONNXRUNTIME_CUDA)
    capturable = False
    is_open = True

    def __init__(self, ort: Any, opened: PlacedSession, stream: int) -> None:
        """stream: the one that the session was made for."""
        self._component, self._opened, self._stream = opened.component, opened, stream
        self._dtypes = session_dtypes(opened.session)
        self._binding = opened.session.io_binding()
        self._options = ort.RunOptions()
        # The caller waits, once a request, not the session after each run.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._dtypes

    def admits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Sessions take any size."""
        return shapes.keys() == self._dtypes.keys()

    def workspace_nbytes(self, shapes: Mapping[str, tuple[int, ...]], stream: int) -> int:
        return 0

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        if tensors.keys() != self._dtypes.keys():
            raise ContractError(
                f"{self._component} was given tensors {sorted(tensors)}, "
                f"its own are {sorted(self._dtypes)}"
            )
        self._check_stream(stream)
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        contract = CONTRACTS[self._component]
        for tensor in contract.tensors:
            at = tensors[tensor.name]
            if at.dtype != self._dtypes[tensor.name]:
                raise ContractError(
                    f"{self._component} takes {tensor.name} as {self._dtypes[tensor.name]}, "
                    f"got {at.dtype}"
                )
            is_input = tensor in contract.inputs
            bind = self._binding.bind_input if is_input else self._binding.bind_output
            bind(tensor.name, "cuda", 0, at.dtype.type, at.shape, at.address)

    def enqueue(self, stream: int) -> None:
        self._check_stream(stream)
        try:
            self._opened.run(self._binding, self._options)
        except FaceDiffuserError:
            raise
        except Exception as error:
            # ONNX Runtime raises a family of unrelated classes.
            if _is_out_of_memory(error):
                raise _memory_short(self._component, error) from error
            raise ContractError(f"{self._component} cannot run: {error}") from error

    def close(self) -> None:
        self.is_open = False
        del self._binding, self._opened

    def _check_stream(self, stream: int) -> None:
        if stream != self._stream:
            raise ContractError(
                f"{self._component} runs on the stream its session was made for, {self._stream}, "
                f"not on {stream}"
            )


class OnnxRuntimeCudaProvider:
    """The sessions of one bundle, opened when they are first needed, all on one stream."""

    provider = Provider.ONNXRUNTIME_CUDA

    def __init__(self, bundle: Bundle, cuda_version: int, stream: int) -> None:
        """cuda_version: of the driver. Raises ProviderUnavailableError where ONNX Runtime is
        missing, is for CPUs, too old, or built for a newer driver."""
        self._ort = onnxruntime_on_gpu(cuda_version)
        if preload := getattr(self._ort, "preload_dlls", None):
            # Finds CUDA's libraries in NVIDIA's wheels; it prints what it does not find.
            with redirect_stdout(sys.stderr):
                preload()
        self._bundle, self._stream = bundle, stream
        # Encoders are the last that a backend opens.
        encoders = [each for each in Component if each not in NOISE_PREDICTORS]
        self._weights = WeightCheck(bundle, [*NOISE_PREDICTORS, *encoders])
        self._sessions: dict[Component, PlacedSession] = {}
        self._engines: dict[Component, list[OnnxRuntimeCudaEngine]] = {}
        self._stack = ExitStack()
        self._profiles = Path(self._stack.enter_context(TemporaryDirectory()))

    def open(
        self, component: Component, shapes: Mapping[str, tuple[int, ...]]
    ) -> OnnxRuntimeCudaEngine:
        if component not in self._sessions:
            self._sessions[component] = self._session(component)
            # It may be read again, long after it was compared.
            self._weights.require_unchanged(component)
        engine = OnnxRuntimeCudaEngine(self._ort, self._sessions[component], self._stream)
        self._engines[component] = [*self._open_engines(component), engine]
        return engine

    def need(self, component: Component, shapes: Mapping[str, tuple[int, ...]]) -> DeviceNeed:
        """Weights take what their file does; of its activations a session tells nothing."""
        nbytes = self._bundle.component(component).onnx_nbytes()
        return DeviceNeed(weights=component, weights_nbytes=nbytes, activations_nbytes=None)

    def trim(self) -> None:
        for component in list(self._sessions):
            if not self._open_engines(component):
                self._sessions.pop(component).close()

    def close(self) -> None:
        self._weights.close()
        for opened in self._sessions.values():
            opened.close()
        self._sessions.clear()
        self._stack.close()

    def _open_engines(self, component: Component) -> list[OnnxRuntimeCudaEngine]:
        return [each for each in self._engines.get(component, ()) if each.is_open]

    def _session(self, component: Component) -> PlacedSession:
        path = self._bundle.model(self._bundle.component(component).onnx, Provider.ONNXRUNTIME_CUDA)
        options = self._ort.SessionOptions()
        for name, value in SESSION_ENTRIES.items():
            options.add_session_config_entry(name, value)
        options.enable_profiling = True  # of the first run: see PlacedSession
        options.profile_file_prefix = str(self._profiles / component)
        settings = SETTINGS | {"user_compute_stream": str(self._stream)}
        try:
            session = opened_session(
                self._ort, component, path, options, [(CUDA_PROVIDER, settings)]
            )
        except BundleCorruptError as error:
            if _is_out_of_memory(error):
                raise _memory_short(component, error) from error
            # The reason is the file only if it is not what the manifest says.
            self._bundle.verify_component(component)
            raise ProviderUnavailableError(
                f"onnxruntime's {CUDA_PROVIDER} does not open {component}: {error.__cause__}; type",
                fix=PACKAGES[CUDA_PROVIDER],
            ) from error
        # No other provider is asked for, so none that is found was wanted.
        if CUDA_PROVIDER not in session.get_providers():
            session.end_profiling()
            raise ProviderUnavailableError(
                f"onnxruntime fell back to {', '.join(session.get_providers())} for {component}: "
                "its CUDA or cuDNN libraries do not load; type",
                fix=PACKAGES[CUDA_PROVIDER],
            )
        return PlacedSession(component, session)


def _is_out_of_memory(error: Exception) -> bool:
    return "allocate memory" in str(error) or "out of memory" in str(error)


def _memory_short(component: Component, error: Exception) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"{component} does not fit the GPU's memory: {error}; ask for fewer or smaller images, or "
        "end what else uses it, which is listed by",
        fix="nvidia-smi",
    )
