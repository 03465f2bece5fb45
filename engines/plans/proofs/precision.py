"""Proofs of precision: the types of the network that is built, and those of every built layer.

Networks are strongly typed, so the types that were parsed bind the builder; the built layers are
looked at all the same, because they are what computes. What breaks a rule is published nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engines import commands
from engines.bundle.manifest import Precision
from engines.bundle.plan_record import LayerPrecision, NetworkPrecision, ToldBy
from engines.contract import CONTRACTS, ElementType
from engines.errors import PlanRefusedError
from engines.plans.building.job import PlanJob
from engines.plans.proofs.layers import EngineLayer, layers_of_inspector
from engines.tensorrt import vendor
from engines.tensorrt.library import TensorRt, accepted, given

# What alone may be in single precision: sinusoids of the timestep, see engines.contract.
_SINUSOIDS_OF = "timestep"


def proven_network(
    trt: TensorRt, network: vendor.INetworkDefinition, job: PlanJob
) -> NetworkPrecision:
    """Look at the type of every tensor of a parsed network; raises PlanRefusedError.

    In a half-precision model, single precision is for what is computed of the timestep alone, and
    for single numbers.
    """
    _check_tensors(trt, network, job)
    floats = singles = sinusoids = 0
    wrong: list[str] = []
    of_timestep = {_SINUSOIDS_OF}
    for layer in _layers(network):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        constant = layer.type == trt.LayerType.CONSTANT
        alone = all(tensor is None or tensor.name in of_timestep for tensor in inputs)
        if constant or alone:
            of_timestep.update(tensor.name for tensor in outputs)
        for tensor in outputs:
            single = tensor.dtype == trt.DataType.FLOAT
            floats += single or tensor.dtype == trt.DataType.HALF
            if single and _size(tensor) != 1:
                singles += 1
                sinusoids += alone or constant
                if not (alone or constant):
                    wrong.append(f"{tensor.name} of {layer.name}")
    if wrong and job.precision is Precision.FP16:
        raise PlanRefusedError(
            f"{job.onnx.name} is not in half precision: {len(wrong)} tensors of the network are in "
            f"single, the first of them {wrong[0]}; the plan is not published; export the model "
            "again",
            fix=commands.typed(commands.BUILD, "--fp16"),
        )
    return NetworkPrecision(tensors=floats, single=singles, sinusoids=sinusoids)


def proven_layers(
    layers: Sequence[EngineLayer], told_by: ToldBy, job: PlanJob
) -> LayerPrecision | None:
    """Look at every layer that computes; None where no layer's types are told.

    Raises PlanRefusedError if one of a half-precision model has a wider operand than half that is
    more than a single number.
    """
    if not any(layer.is_told for layer in layers):
        return None
    computing = [layer for layer in layers if layer.computes and layer.is_told]
    wide = [layer for layer in computing if layer.is_wide]
    if wide and job.precision is Precision.FP16:
        raise PlanRefusedError(
            f"{job.name} did not come out in half precision: {len(wide)} of its {len(computing)} "
            f"layers that compute take or give single precision, the first of them "
            f"{wide[0].name} ({told_by}); the plan is not published; see {job.log}"
        )
    return LayerPrecision(
        told_by=told_by,
        layers=len(layers),
        compute_layers=len(computing),
        half_layers=len(computing) - len(wide),
    )


def inspected_layers(trt: TensorRt, engine: vendor.ICudaEngine, job: PlanJob) -> list[EngineLayer]:
    """What the engine inspector tells, for the best shapes of the first optimization profile."""
    inspector = engine.create_engine_inspector()
    context = given(
        engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED),
        f"an execution context of {job.name}",
    )
    # Formats of tensors with open dimensions are told only for the shapes of a context.
    accepted(context.set_optimization_profile_async(0, 0), f"optimization profile 0 of {job.name}")
    for name, shapes in job.spec.shapes[0].items():
        accepted(context.set_input_shape(name, shapes[1]), f"{name} {shapes[1]} of {job.name}")
    inspector.execution_context = context
    return layers_of_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _layers(network: vendor.INetworkDefinition) -> Iterator[vendor.ILayer]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _size(tensor: vendor.ITensor) -> int:
    """Elements of a tensor; negative or 0 where a size is open."""
    elements = 1
    for size in tensor.shape:
        elements *= int(size)
    return elements


def _check_tensors(trt: TensorRt, network: vendor.INetworkDefinition, job: PlanJob) -> None:
    """A network whose own inputs and outputs are in another precision is not what was asked for."""
    half = job.precision is Precision.FP16
    expected = trt.DataType.HALF if half else trt.DataType.FLOAT
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    found = {tensor.name: tensor.dtype for tensor in tensors}
    for tensor in CONTRACTS[job.spec.component].tensors:
        dtype = found.get(tensor.name)
        if tensor.element_type is ElementType.FLOAT and dtype != expected:
            raise PlanRefusedError(
                f"{job.name} takes {tensor.name} as {dtype}, expected {expected}; "
                "the plan is not published; export the model again",
                fix=commands.typed(commands.BUILD, "--fp16"),
            )
