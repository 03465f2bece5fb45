"""ONNX Runtime's CUDA provider on device buffers: the GPU backend without TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.weights import WeightCheck
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component
from engines.engine import DeviceTensor, Provider
from engines.errors import ContractError, DeviceMemoryError, ProviderUnavailableError
from engines.onnxruntime.library import (
    CUDA_PROVIDER,
    onnxruntime_with,
    opened_session,
    session_dtypes,
)


class OnnxRuntimeCudaEngine:
    """One binding of a session that others may share.

    Not capturable: whether a run waits for the host or allocates is ONNX Runtime's own affair. Its
    activation memory is, too.
    """

    provider = str(Provider.ONNXRUNTIME_CUDA)
    capturable = False

    def __init__(self, ort: Any, component: Component, session: Any, stream: int) -> None:
        """stream: the one that the session was made for."""
        self._component, self._session, self._stream = component, session, stream
        self._dtypes = session_dtypes(session)
        self._binding = session.io_binding()
        self._options = ort.RunOptions()
        # The caller waits, once a request, not the session after each run.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._dtypes

    def admits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Sessions take any size."""
        return shapes.keys() == self._dtypes.keys()

    def workspace_nbytes(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
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
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:
            # ONNX Runtime raises a family of unrelated classes.
            if "allocate memory" in str(error) or "out of memory" in str(error):
                raise DeviceMemoryError(
                    f"{self._component} does not fit the GPU's memory: {error}; ask for fewer or "
                    "smaller images, or end what else uses it, which is listed by",
                    fix="nvidia-smi",
                ) from error
            raise ContractError(f"{self._component} cannot run: {error}") from error

    def close(self) -> None:
        del self._binding, self._session

    def _check_stream(self, stream: int) -> None:
        if stream != self._stream:
            raise ContractError(
                f"{self._component} runs on the stream its session was made for, {self._stream}, "
                f"not on {stream}"
            )


class OnnxRuntimeCudaProvider:
    """The sessions of one bundle, opened when they are first needed, all on one stream."""

    provider = Provider.ONNXRUNTIME_CUDA

    def __init__(self, bundle: Bundle, stream: int) -> None:
        """Raises ProviderUnavailableError where ONNX Runtime is missing or is for CPUs."""
        self._ort = onnxruntime_with(CUDA_PROVIDER)
        if preload := getattr(self._ort, "preload_dlls", None):
            # Finds CUDA's libraries in NVIDIA's wheels; it prints what it does not find.
            with redirect_stdout(sys.stderr):
                preload()
        self._bundle, self._stream = bundle, stream
        self._sessions: dict[Component, Any] = {}
        # Encoders are the last that a backend opens.
        encoders = [each for each in Component if each not in NOISE_PREDICTORS]
        self._weights = WeightCheck(bundle, [*NOISE_PREDICTORS, *encoders])

    def open(
        self, component: Component, shapes: Mapping[str, tuple[int, ...]]
    ) -> OnnxRuntimeCudaEngine:
        if component not in self._sessions:
            opened = self._session(component)
            self._weights.require(component)
            self._sessions[component] = opened
        session = self._sessions[component]
        return OnnxRuntimeCudaEngine(self._ort, component, session, self._stream)

    def close(self) -> None:
        self._weights.close()
        self._sessions.clear()

    def _session(self, component: Component) -> Any:
        path = self._bundle.model(self._bundle.component(component).onnx, Provider.ONNXRUNTIME_CUDA)
        settings = {"device_id": "0", "user_compute_stream": str(self._stream)}
        # No other provider is asked for, so none that is found was wanted.
        session = opened_session(
            self._ort, component, path, self._ort.SessionOptions(), [(CUDA_PROVIDER, settings)]
        )
        if CUDA_PROVIDER not in session.get_providers():
            raise ProviderUnavailableError(
                f"onnxruntime fell back to {', '.join(session.get_providers())} for {component}: "
                "its CUDA or cuDNN libraries do not load; type",
                fix='pip install "onnxruntime-gpu[cuda,cudnn]"',
            )
        return session
