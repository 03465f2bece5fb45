"""A TensorRT plan as a DeviceEngine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.contract import Component
from engines.device import DeviceTensor
from engines.plan_loader import engine_from_plan
from engines.tensorrt_api import TensorRt, accepted, given


class TensorRtEngine:
    """Stand-in."""

    provider = "tensorrt"
    capturable = True

    def __init__(
        self, component: Component, plan: bytes, trt: TensorRt, logger: Any, weights: Path | None
    ) -> None:
        self._trt = trt
        self._engine = engine_from_plan(trt, logger, plan, component, weights)
        self._context = given(
            self._engine.create_execution_context(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            ),
            "context",
        )

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        kinds: dict[Any, Any] = {"HALF": np.float16, "FLOAT": np.float32, "INT32": np.int32}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        return {
            n: np.dtype(kinds.get(self._engine.get_tensor_dtype(n).name, np.bool_)) for n in names
        }

    def _set(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        for profile in range(self._engine.num_optimization_profiles):
            accepted(self._context.set_optimization_profile_async(profile, 0), "profile")
            inputs = [
                n for n in shapes if self._engine.get_tensor_mode(n) == self._trt.TensorIOMode.INPUT
            ]
            if all(self._context.set_input_shape(n, shapes[n]) for n in inputs):
                return True
        return False

    def admits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        return self._set(shapes)

    def workspace_nbytes(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        assert self._set(shapes)
        return self._context.update_device_memory_size_for_shapes()

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        shapes = {name: t.shape for name, t in tensors.items()}
        size = self.workspace_nbytes(shapes)
        self._context.set_device_memory(workspace, size)
        for name, tensor in tensors.items():
            accepted(self._context.set_tensor_address(name, tensor.address), name)

    def enqueue(self, stream: int) -> None:
        accepted(self._context.execute_async_v3(stream), "enqueue")

    def close(self) -> None:
        del self._context, self._engine
