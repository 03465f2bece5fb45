"""The parity gate on the GPU: a plan against ONNX Runtime computing in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from engines import commands
from engines.bundle.plan_record import PlanParity
from engines.contract import CONTRACTS, Shape
from engines.cuda.driver import driver_version
from engines.cuda.gpu import Gpu
from engines.engine import DeviceEngine, DeviceTensor
from engines.errors import PlanRefusedError
from engines.gate import Array, bound_of, farthest, gate_inputs, gate_shapes, relative_l2
from engines.onnxruntime.cpu import OnnxRuntimeEngine
from engines.plans.building.job import PlanJob


def plan_parity(
    engine: DeviceEngine, gpu: Gpu, job: PlanJob, progress: Callable[[int, int], None]
) -> PlanParity:
    """Compare a plan's outputs with the CPU's on the gate's inputs, in every optimization profile.

    progress: told how many cases are done, of how many. Raises PlanRefusedError if the plan is not
    finite anywhere or drifts beyond the component's bound.
    """
    reference = OnnxRuntimeEngine(job.spec.component, job.cpu_onnx)
    bound = bound_of(job.spec.component, job.precision)
    contract = CONTRACTS[job.spec.component]
    output = contract.outputs[0].name
    distances: list[float] = []
    try:
        every = gate_shapes(job.spec.shapes)
        for number, shapes in enumerate(every):
            inputs = list(gate_inputs(job.spec.component, shapes))
            shapes = contract.shapes(job.dimensions.sizes() | contract.sizes(shapes))
            with ExitStack() as stack:
                run = _bound(engine, gpu, shapes, output, stack)
                for case in inputs:
                    done = len(distances)
                    progress(done, len(inputs) * (len(every) - number) + done)
                    found = run(case).astype(np.float32)
                    if not np.isfinite(found).all():
                        raise PlanRefusedError(
                            f"{job.name} gives NaN or infinity; the plan is refused; find "
                            "the layer with",
                            fix=_bisect(job),
                        )
                    distances.append(relative_l2(found, _expected(reference, case, shapes)))
    finally:
        reference.close()
    worst = farthest(distances)
    if not worst <= bound:
        raise PlanRefusedError(
            f"{job.name} is {worst:.2e} from ONNX Runtime on the CPU (relative L2), the bound is "
            f"{bound:.1e}; the plan is refused; find the layer with",
            fix=_bisect(job),
        )
    return PlanParity(
        relative_l2=worst,
        bound=bound,
        cases=len(distances),
        gpu=gpu.name,
        driver=driver_version(),
    )


def _bisect(job: PlanJob) -> str:
    return commands.typed(commands.BISECT, job.onnx.parent.parent, job.spec.component)


def _bound(
    engine: DeviceEngine, gpu: Gpu, shapes: dict[str, Shape], output: str, stack: ExitStack
) -> Callable[[dict[str, Array]], Array]:
    """Bind an engine to memory of its own; returns what runs it on arrays of the host."""
    stream = gpu.stream(stack)
    tensors, staging = {}, {}
    for name, shape in shapes.items():
        dtype = engine.dtypes[name]
        nbytes = int(np.prod(shape)) * dtype.itemsize
        memory = gpu.memory(stack, nbytes, f"{name} {shape}")
        pinned = gpu.pinned(stack, nbytes, f"{name} {shape}")
        staging[name] = (pinned, pinned.array(0, shape, dtype))
        tensors[name] = DeviceTensor(memory.address, shape, dtype)
    workspace = 0
    if nbytes := engine.workspace_nbytes(shapes, stream.handle):
        workspace = gpu.memory(stack, nbytes, "activations").address
    engine.bind(tensors, workspace, stream.handle)
    # Memory is given back only when the stream is done with it.
    stack.callback(stream.drain)

    def run(inputs: dict[str, Array]) -> Array:
        for name, array in inputs.items():
            pinned, view = staging[name]
            view[...] = array
            stream.upload(tensors[name].address, pinned.address, view.nbytes)
        engine.enqueue(stream.handle)
        pinned, view = staging[output]
        stream.download(pinned.address, tensors[output].address, view.nbytes)
        stream.synchronize()
        return np.array(view)

    return run


def _expected(
    reference: OnnxRuntimeEngine, inputs: dict[str, Array], shapes: dict[str, Shape]
) -> Array:
    """What the CPU computes in float32 from the same inputs."""
    buffers = {name: np.zeros(shape, reference.dtypes[name]) for name, shape in shapes.items()}
    for name, array in inputs.items():
        buffers[name][...] = array
    reference.bind(buffers)
    reference.enqueue()
    (output,) = set(shapes) - set(inputs)
    return buffers[output]
