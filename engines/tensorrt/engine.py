"""A TensorRT plan as a DeviceEngine: one execution context on the caller's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.contract import CONTRACTS, LATENT_PX, NOISE_PREDICTORS, Component, Shape
from engines.engine import DeviceTensor, Provider
from engines.errors import ContractError, RequestError
from engines.tensorrt import vendor
from engines.tensorrt.library import TensorRt, accepted, given


class TensorRtEngine:
    """One context of a deserialized plan, which others may share.

    Its optimization profile is chosen when it is bound: of those that admit the shapes, the one
    that was tuned nearest to them.
    """

    provider = str(Provider.TENSORRT)
    capturable = True
    is_open = True

    def __init__(self, component: Component, trt: TensorRt, engine: vendor.ICudaEngine) -> None:
        """Raises ContractError for other tensors than the contract's, TensorRtError."""
        self._component, self._engine = component, engine
        self._inputs = [tensor.name for tensor in CONTRACTS[component].inputs]
        self._dtypes = _dtypes(component, trt, engine)
        self._context = given(self._new_context(trt), f"an execution context of {component}")

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self._dtypes

    def admits(self, shapes: Mapping[str, Shape]) -> bool:
        return self._profile(shapes) is not None

    def workspace_nbytes(self, shapes: Mapping[str, Shape], stream: int) -> int:
        """Activation memory of these shapes; raises RequestError outside the profiles.

        The plan tells it for the largest shapes of a profile; for others the context is set to
        them and asked.
        """
        profile = self._admitting(shapes)
        if self._is_largest(profile, shapes):
            return self._engine.get_device_memory_size_for_profile_v2(profile)
        self._set_shapes(profile, shapes, stream)
        return self._needed_nbytes(profile, shapes)

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        """Set profile, shapes and addresses, once; waits for nothing.

        Raises ContractError, RequestError for a size outside the profiles, TensorRtError.
        """
        self._check(tensors)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        what, context = self._component, self._context
        profile = self._admitting(shapes)
        self._set_shapes(profile, shapes, stream)
        context.set_device_memory(workspace, self._needed_nbytes(profile, shapes))
        for name, tensor in tensors.items():
            accepted(
                context.set_tensor_address(name, tensor.address),
                f"{tensor.address:#x} as the address of {name} of {what}",
            )

    def enqueue(self, stream: int) -> None:
        accepted(self._context.execute_async_v3(stream), f"to run {self._component}")

    def close(self) -> None:
        self.is_open = False
        del self._context, self._engine

    def _set_shapes(self, profile: int, shapes: Mapping[str, Shape], stream: int) -> None:
        what, context = self._component, self._context
        accepted(
            context.set_optimization_profile_async(profile, stream),
            f"optimization profile {profile} of {what}",
        )
        for name in self._inputs:
            accepted(
                context.set_input_shape(name, shapes[name]), f"{name} {shapes[name]} of {what}"
            )
        if missing := context.infer_shapes():
            raise ContractError(f"{what} wants shapes for {', '.join(missing)} as well")
        for name, shape in shapes.items():
            if (found := tuple(context.get_tensor_shape(name))) != shape:
                raise ContractError(f"{what} takes {name} as {found}, got {shape}")

    def _needed_nbytes(self, profile: int, shapes: Mapping[str, Shape]) -> int:
        """Activation memory of the shapes that the context is set to."""
        most = self._engine.get_device_memory_size_for_profile_v2(profile)
        if self._is_largest(profile, shapes):
            return most
        # A context that knows no better answers 0.
        return self._context.update_device_memory_size_for_shapes() or most

    def _is_largest(self, profile: int, shapes: Mapping[str, Shape]) -> bool:
        return all(_range(self._engine, name, profile)[2] == shapes[name] for name in self._inputs)

    def _new_context(self, trt: TensorRt) -> vendor.IExecutionContext | None:
        return self._engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )

    def _admitting(self, shapes: Mapping[str, Shape]) -> int:
        profile = self._profile(shapes)
        if profile is None:
            asked = sizes_in_words(self._component, [shapes[name] for name in self._inputs])
            raise RequestError(f"the plan of {self._component} does not take {asked}")
        return profile

    def _profile(self, shapes: Mapping[str, Shape]) -> int | None:
        """The admitting profile whose tuned shapes are nearest; None where none admits."""
        distances = {}
        for profile in range(self._engine.num_optimization_profiles):
            distance = 0
            for name in self._inputs:
                low, best, high = _range(self._engine, name, profile)
                shape = shapes[name]
                inside = len(shape) == len(low) and all(
                    a <= size <= b for a, size, b in zip(low, shape, high, strict=True)
                )
                if not inside:
                    break
                distance += sum(abs(a - b) for a, b in zip(shape, best, strict=True))
            else:
                distances[profile] = distance
        return min(distances, key=lambda profile: distances[profile], default=None)

    def _check(self, tensors: Mapping[str, DeviceTensor]) -> None:
        if tensors.keys() != self._dtypes.keys():
            raise ContractError(
                f"{self._component} was given tensors {sorted(tensors)}, "
                f"its own are {sorted(self._dtypes)}"
            )
        for name, tensor in tensors.items():
            if tensor.dtype != self._dtypes[name]:
                raise ContractError(
                    f"{self._component} takes {name} as {self._dtypes[name]}, got {tensor.dtype}"
                )


def sizes_in_words(component: Component, inputs: Sequence[Shape]) -> str:
    """Shapes of a component's inputs, in the contract's order, as a caller knows them."""
    count, *rest = inputs[0]
    plural = "s" if count > 1 else ""
    if "latents" not in (tensor.name for tensor in CONTRACTS[component].inputs):
        return f"{count} row{plural}"
    height, width = (LATENT_PX * side for side in rest[1:])
    words = f"{count} image{plural} of {height}x{width} px"
    return f"{words} in {inputs[2][0] // count} passes" if component in NOISE_PREDICTORS else words


def _range(engine: vendor.ICudaEngine, name: str, profile: int) -> tuple[Shape, Shape, Shape]:
    static = tuple(engine.get_tensor_shape(name))
    if -1 not in static:
        return static, static, static
    low, best, high = (tuple(each) for each in engine.get_tensor_profile_shape(name, profile))
    return low, best, high


def _dtypes(
    component: Component, trt: TensorRt, engine: vendor.ICudaEngine
) -> dict[str, np.dtype[Any]]:
    """Element type of every tensor; raises ContractError if they are not the contract's."""
    # Enum members of the vendor's are compared, never hashed or stored.
    kinds = (
        (trt.DataType.HALF, np.float16),
        (trt.DataType.FLOAT, np.float32),
        (trt.DataType.INT32, np.int32),
        (trt.DataType.BOOL, np.bool_),
    )
    expected = {tensor.name for tensor in CONTRACTS[component].tensors}
    found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    if found != expected:
        raise ContractError(
            f"the plan of {component} has tensors {sorted(found)}, the contract says "
            f"{sorted(expected)}"
        )
    dtypes = {}
    for name in found:
        dtype = engine.get_tensor_dtype(name)
        matching = [np.dtype(kind) for vendors, kind in kinds if vendors == dtype]
        if not matching:
            raise ContractError(f"the plan of {component} has {name} as {dtype}")
        dtypes[name] = matching[0]
    return dtypes
