"""Who computes: the backends' names, and what a GPU backend is to the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from engines.contract import Component
from engines.device import DeviceEngine


class Provider(StrEnum):
    """The backends, best first."""

    TENSORRT = "tensorrt"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_CPU = "onnxruntime-cpu"
    OPENVINO = "openvino"


class DeviceProvider(Protocol):
    """Opens the components of one bundle on one GPU; weights are loaded once each."""

    provider: Provider

    def open(self, component: Component, shapes: Mapping[str, tuple[int, ...]]) -> DeviceEngine:
        """An engine that admits tensors of these shapes, to be bound by the caller.

        Raises RequestError, listing what there is, if none does; DeviceMemoryError,
        ProviderUnavailableError, BundleCorruptError if it does not open.
        """
        ...

    def close(self) -> None:
        """Give the weights back, after every engine was closed."""
        ...
