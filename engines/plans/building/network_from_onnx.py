"""From an ONNX file to a network: parsed, with the contract's inputs."""

from __future__ import annotations

from engines import commands
from engines.contract import CONTRACTS
from engines.errors import PlanBuildError
from engines.plans.building.job import PlanJob
from engines.tensorrt import vendor
from engines.tensorrt.libraries import LIBRARIES, TENSORRT
from engines.tensorrt.library import ErrorLog, TensorRt, version_of

# Networks have their types from then on without asking; before, some operators are not known.
_TENSORRT_11 = (11, 0)


def network_from_onnx(
    trt: TensorRt, builder: vendor.Builder, logger: vendor.ILogger, log: ErrorLog, job: PlanJob
) -> vendor.INetworkDefinition:
    """Parse a job's model into a strongly typed network.

    Raises PlanBuildError with every node and file that the parser or its log names.
    """
    library = LIBRARIES[job.spec.library]
    old = library is TENSORRT and version_of(trt.__version__) < _TENSORRT_11
    network = builder.create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if old else 0
    )
    parser = trt.OnnxParser(network, logger)
    # By path, so that the weights file beside the graph is found.
    if not parser.parse_from_file(str(job.onnx)):
        # Attention and normalizations as one node each came with opset 23.
        hint = "; for this TensorRT try the older operators" if old else ""
        raise PlanBuildError(
            f"{library.title} {trt.__version__} cannot read {job.onnx}: "
            f"{parser_errors(parser, log)}{hint}",
            fix=commands.typed(commands.BUILD, "--opset", 21) if old else None,
        )
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    expected = [tensor.name for tensor in CONTRACTS[job.spec.component].inputs]
    if sorted(names) != sorted(expected):
        raise PlanBuildError(
            f"{job.onnx} has inputs {', '.join(names)}; the contract of {job.spec.component} says "
            f"{', '.join(expected)}; export it again",
            fix=commands.rebuilt(job.onnx.parent.parent),
        )
    return network


def parser_errors(parser: vendor.OnnxParser, log: ErrorLog) -> str:
    """Every error of a parser, each with its node; then what the log alone says, such as files."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    known = [" ".join(error.desc().split()) for error in errors]
    told = [
        f"node {error.node()} {error.node_name()} ({error.node_operator()}): {reason}"
        for error, reason in zip(errors, known, strict=True)
    ]
    told += [error for error in log.errors if not any(desc and desc in error for desc in known)]
    return "; ".join(told) or "no reason given"
