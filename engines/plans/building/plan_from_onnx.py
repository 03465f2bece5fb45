"""From an ONNX file to a TensorRT plan: network, profiles, configuration, build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from engines.bundle.files import write_atomic
from engines.bundle.plan_record import NetworkPrecision
from engines.errors import (
    PlanBuildError,
    PlanMemoryError,
    PlanUnsupportedError,
    ProviderUnavailableError,
)
from engines.plans.building.job import PlanJob
from engines.plans.building.monitor import PlanCancelledError
from engines.plans.building.network_from_onnx import network_from_onnx
from engines.plans.proofs.attention import MAY_BE_UNFUSED, attention_nodes
from engines.plans.proofs.precision import proven_network
from engines.tensorrt import vendor, vendor_rtx
from engines.tensorrt.libraries import LIBRARIES, TENSORRT_RTX, Library
from engines.tensorrt.library import (
    ErrorLog,
    TensorRt,
    TensorRtRtx,
    accepted,
    bytes_of,
)

# Such as attention with heads that are too narrow, too wide, or in single precision.
_UNSUPPORTED = "not supported by a dedicated kernel"


@dataclass(frozen=True)
class Built:
    """A plan, and what its network was. attention: names of its Attention nodes, where told."""

    plan: bytes
    network: NetworkPrecision
    attention: list[str] | None


def plan_from_onnx(
    trt: TensorRt, logger: vendor.ILogger, log: ErrorLog, job: PlanJob, monitor: Any
) -> Built:
    """Build a plan; where the library has a timing cache, the job's is used and extended.

    Precision is the graph's own: networks are strongly typed, and TF32 is off, because what the
    graph keeps in float32 needs more than the 11 bits that TF32 and half precision have in common.
    Raises ProviderUnavailableError without a GPU where one is needed, PlanRefusedError for a
    network in another precision, PlanMemoryError, or PlanBuildError.
    """
    library = LIBRARIES[job.spec.library]
    builder = _builder(trt, logger, log, job)
    network = network_from_onnx(trt, builder, logger, log, job)
    proof = proven_network(trt, network, job)
    attention = None
    config = builder.create_builder_config()
    _configure(trt, config, job)
    _set_shapes(trt, builder, network, config, job)
    config.progress_monitor = monitor
    if library is TENSORRT_RTX:
        rtx = cast(TensorRtRtx, trt)
        attention = attention_nodes(rtx, network)
        if job.spec.component in MAY_BE_UNFUSED:
            _allow_unfused(rtx, network)
        _configure_rtx(rtx, cast(vendor_rtx.RtxBuilderConfig, config), job)
    if library.has_timing_cache:
        _load_timing_cache(config, job)
    log.errors.clear()
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise PlanCancelledError(f"{job.name}: the build was cancelled")
    if plan is None:
        raise _nothing_built(library, log, job)
    if library.has_timing_cache:
        write_atomic(job.timing_cache, bytes_of(config.get_timing_cache().serialize()))
    return Built(bytes_of(plan), proof, attention)


def _nothing_built(library: Library, log: ErrorLog, job: PlanJob) -> PlanBuildError:
    if _UNSUPPORTED in log.reason():
        return PlanUnsupportedError(
            f"{job.name}: {library.title} has no fused attention for heads of this model's width "
            f"and precision, so there are no plans of it; it is drawn from its ONNX models; see "
            f"{job.log}"
        )
    kind = PlanMemoryError if log.tells_of_memory() else PlanBuildError
    return kind(f"{job.name}: {library.title} built nothing: {log.reason()}; see {job.log}")


def _builder(trt: TensorRt, logger: vendor.ILogger, log: ErrorLog, job: PlanJob) -> vendor.Builder:
    try:
        return trt.Builder(logger)
    # What the bindings raise where the library gives no builder: there is no GPU or driver.
    except TypeError as error:
        raise ProviderUnavailableError(
            f"{LIBRARIES[job.spec.library].title} {trt.__version__} cannot build on this machine "
            f"({log.reason()}); it "
            "needs an NVIDIA GPU and a driver for its CUDA version; check",
            fix="nvidia-smi",
        ) from error


def _configure(trt: TensorRt, config: vendor.IBuilderConfig, job: PlanJob) -> None:
    options = job.spec.options
    if LIBRARIES[job.spec.library].has_optimization_levels:
        config.builder_optimization_level = job.optimization_level
    # Overlapping is the runtime's part: it runs the two U-Nets side by side.
    config.max_aux_streams = 0
    # Without details neither log nor inspector tells a layer's precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)


def _configure_rtx(rtx: TensorRtRtx, config: vendor_rtx.RtxBuilderConfig, job: PlanJob) -> None:
    # Without it a plan allocates while it runs, and cannot be captured into a graph.
    config.set_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    # None is more than all: only then is the plan for later cards as well.
    config.num_compute_capabilities = len(job.spec.architectures)
    for index, architecture in enumerate(job.spec.architectures):
        capability = getattr(rtx.ComputeCapability, f"SM{architecture}")
        accepted(
            config.set_compute_capability(capability, index),
            f"architecture {architecture} of {job.name}",
        )


def _allow_unfused(rtx: TensorRtRtx, network: vendor.INetworkDefinition) -> None:
    """Let attention be several layers: with open sizes, what no kernel fuses is not built else."""
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.type == rtx.LayerType.ATTENTION_INPUT:
            # The bindings give every layer as an ILayer.
            layer.__class__ = rtx.IAttentionInputLayer
            cast(vendor_rtx.IAttentionInputLayer, layer).attention.decomposable = True


def _set_shapes(
    trt: TensorRt,
    builder: vendor.Builder,
    network: vendor.INetworkDefinition,
    config: vendor.IBuilderConfig,
    job: PlanJob,
) -> None:
    """Close the open sizes of a static plan's network; else say the ranges of every profile."""
    if job.spec.is_static:
        for tensor in (network.get_input(index) for index in range(network.num_inputs)):
            tensor.shape = trt.Dims(job.spec.shapes[0][tensor.name][1])
        return
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
