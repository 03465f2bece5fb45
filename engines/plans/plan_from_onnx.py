"""From an ONNX file to a TensorRT plan: network, profiles, configuration, build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines import commands
from engines.bundle.files import write_atomic
from engines.contract import CONTRACTS
from engines.errors import PlanBuildError, PlanMemoryError, ProviderUnavailableError
from engines.plans.job import PlanJob
from engines.tensorrt import vendor
from engines.tensorrt.library import ErrorLog, TensorRt, accepted, bytes_of, version_of

_TENSORRT_11 = (11, 0)


class PlanCancelledError(PlanBuildError):
    """The build was cancelled."""


def plan_from_onnx(
    trt: TensorRt, logger: vendor.ILogger, log: ErrorLog, job: PlanJob, monitor: Any
) -> bytes:
    """Build a plan; the timing cache that the job names is used and extended.

    Precision is the graph's own: networks are strongly typed, and TF32 is off, because what the
    graph keeps in float32 needs more than the 11 bits that TF32 and half precision have in common.
    Raises ProviderUnavailableError without a GPU, PlanMemoryError, or PlanBuildError.
    """
    builder = _builder(trt, logger, log)
    network = _network(trt, builder, logger, job)
    config = builder.create_builder_config()
    _configure(trt, builder, config, job)
    config.progress_monitor = monitor
    _load_timing_cache(config, job)
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise PlanCancelledError(f"{job.name}: the build was cancelled")
    if plan is None:
        kind = PlanMemoryError if log.tells_of_memory() else PlanBuildError
        raise kind(f"{job.name}: TensorRT built nothing: {log.last_words()}; see {job.log}")
    write_atomic(job.timing_cache, bytes_of(config.get_timing_cache().serialize()))
    return bytes_of(plan)


def _builder(trt: TensorRt, logger: vendor.ILogger, log: ErrorLog) -> vendor.Builder:
    try:
        return trt.Builder(logger)
    # What the bindings raise where the library gives no builder: there is no GPU or driver.
    except TypeError as error:
        raise ProviderUnavailableError(
            f"TensorRT {trt.__version__} cannot build on this machine ({log.last_words()}); it "
            "needs an NVIDIA GPU and a driver for its CUDA version; check",
            fix="nvidia-smi",
        ) from error


def _network(
    trt: TensorRt, builder: vendor.Builder, logger: vendor.ILogger, job: PlanJob
) -> vendor.INetworkDefinition:
    flags = 0
    if version_of(trt.__version__) < _TENSORRT_11:
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    # By path, so that the weights file beside the graph is found.
    if not parser.parse_from_file(str(job.onnx)):
        # Attention and normalizations as one node each came with opset 23.
        old = version_of(trt.__version__) < _TENSORRT_11
        hint = "; for this TensorRT try the older operators" if old else ""
        raise PlanBuildError(
            f"TensorRT {trt.__version__} cannot read {job.onnx}: {parser_errors(parser)}{hint}",
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


def parser_errors(parser: vendor.OnnxParser) -> str:
    """Every error of a parser, each with its node."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [
        f"node {error.node()} {error.node_name()} ({error.node_operator()}): {error.desc()}"
        for error in errors
    ]
    return "; ".join(told) or "no reason given"


def _configure(
    trt: TensorRt, builder: vendor.Builder, config: vendor.IBuilderConfig, job: PlanJob
) -> None:
    options = job.spec.options
    config.builder_optimization_level = job.optimization_level
    # Overlapping is the runtime's part: it runs the two U-Nets side by side.
    config.max_aux_streams = 0
    # Without details the inspector cannot tell a layer's precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    for index, ranges in enumerate(job.spec.shapes):
        profile = builder.create_optimization_profile()
        for name, shapes in ranges.items():
            low, best, high = (trt.Dims(shape) for shape in shapes)
            profile.set_shape(name, low, best, high)
        accepted(bool(profile), f"the shapes of {job.name}: {ranges}")
        found = config.add_optimization_profile(profile)
        accepted(found == index, f"optimization profile {index} of {job.name}, got {found}")


def _load_timing_cache(config: vendor.IBuilderConfig, job: PlanJob) -> None:
    """Use the timing cache if it is of this GPU and version, else begin a new one."""
    content = job.timing_cache.read_bytes() if job.timing_cache.is_file() else b""
    for each in (content, b""):
        cache = config.create_timing_cache(each)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
    raise PlanBuildError(f"{job.name}: TensorRT accepts no timing cache, not even an empty one")


@dataclass
class Cancellation:
    """Whether a build is to stop; set from another thread."""

    requested: bool = False


def progress_monitor(trt: TensorRt, tell: Any, cancellation: Cancellation) -> Any:
    """A TensorRT progress monitor; `tell` gets (kind, phase, parent or None, number).

    TensorRT calls it from several threads and stops soon after `cancellation` is requested. Keep
    it alive during the build. Its `cancelled` says whether it stopped a build.
    """
    base = trt.IProgressMonitor

    class _Monitor(base):  # type: ignore[misc, valid-type]  # the vendor's class is known at run time
        def __init__(self) -> None:
            base.__init__(self)
            self.cancelled = False

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:
            tell("start", phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell("step", phase_name, None, step)
            self.cancelled = self.cancelled or cancellation.requested
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            tell("finish", phase_name, None, 0)

    return _Monitor()
