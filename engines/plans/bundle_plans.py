"""Building a bundle's plans: what is missing, one process each, a picture to compare, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines import commands
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Manifest, Precision
from engines.bundle.plan_record import (
    BuiltPlan,
    LibraryName,
    PlanOptionError,
    PlanOptions,
    PlanRecord,
    PlanSpec,
)
from engines.bundle.quantization import LEAST_ARCHITECTURE, Quantization, QuantizationRecipe
from engines.cli.progress import Display
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import PlanMemoryError, ProviderUnavailableError
from engines.plans.building.child import OnEvent, plan_in_process
from engines.plans.building.job import PlanJob
from engines.plans.forecast import forecast, told_room
from engines.plans.profiles import DEFAULT_PROFILE, planned, profile_named
from engines.plans.proofs.quantization import proven_activations
from engines.plans.store import (
    finished_plan,
    plan_file,
    publish,
    staging_folder,
    working_timing_cache,
    write_journal,
)
from engines.tensorrt.libraries import LIBRARIES, Library
from engines.tensorrt.plans_here import plans_on
from engines.tensorrt.target import PlanTarget

BuildPlan = Callable[[PlanJob, OnEvent], BuiltPlan]
# Compares what the bundle draws with these plans and without; raises PlanRefusedError.
ComparePictures = Callable[[Path, Manifest, list[PlanRecord]], None]


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Which plans to build.

    library: None is the best that the machine can build for. plans_only: drop the ONNX models then.
    """

    library: LibraryName | None = None
    architectures: tuple[int, ...] = ()
    profiles: tuple[str, ...] = (DEFAULT_PROFILE,)
    components: tuple[Component, ...] = tuple(Component)
    options: PlanOptions = field(default_factory=PlanOptions)
    plans_only: bool = False


@dataclass(frozen=True, kw_only=True)
class PlansBuilt:
    """What a build did: names of plans that were built, and of those that were there already."""

    manifest: Manifest
    built: tuple[str, ...]
    kept: tuple[str, ...]


def plan_specs(bundle: Bundle, target: PlanTarget, request: PlanRequest) -> list[PlanSpec]:
    """Every plan that a request asks for, each once; raises PlanOptionError."""
    check_options(target.library, request.options)
    specs: dict[str, PlanSpec] = {}
    for graphs in (bundle, *map(bundle.quantized, bundle.quantizations())):
        for profile_name in request.profiles:
            asked = profile_named(profile_name)
            for component in request.components:
                quantization = graphs.quantization if component in NOISE_PREDICTORS else None
                architectures = _architectures(target, quantization)
                if architectures is None:
                    continue
                for profile, shapes in planned(component, asked, bundle.manifest.dimensions):
                    spec = PlanSpec(
                        component=component,
                        profile=profile,
                        library=target.library.name,
                        version=target.version,
                        architectures=architectures,
                        quantization=quantization,
                        onnx_digest=graphs.component(component).onnx_digest(),
                        shapes=shapes,
                        options=request.options,
                    )
                    specs.setdefault(spec.name, spec)
    return list(specs.values())


def check_options(library: Library, options: PlanOptions) -> None:
    """Raise PlanOptionError for an option that changes nothing in a library."""
    if not library.has_optimization_levels and (
        options.optimization_level != PlanOptions().optimization_level
    ):
        raise PlanOptionError(
            f"optimization_level={options.optimization_level}: {library.title} builds the same "
            "plan at every level, as its kernels are compiled where the plan is opened; leave it "
            "out"
        )


def check_precision(bundle: Bundle, library: Library) -> None:
    """Raise ProviderUnavailableError for a model that a library builds no plan of."""
    if bundle.manifest.precision is Precision.FP32 and not library.has_single_precision:
        raise ProviderUnavailableError(
            f"{library.title} has no attention in single precision, and {bundle.path} is in it; "
            "export the model in half precision with",
            fix=commands.typed(commands.BUILD, "--fp16", "--out", bundle.path),
        )


def build_plans(
    path: Path,
    target: PlanTarget,
    request: PlanRequest,
    display: Display,
    compare_pictures: ComparePictures,
    build: BuildPlan = plan_in_process,
) -> PlansBuilt:
    """Build what is missing of a bundle's plans for a target and publish it.

    Plans that an earlier build finished to the same spec are kept. A plan that is not in half
    precision, drifts or is not finite is never published, nor are plans that draw another picture;
    what only a GPU can tell of that is told where there is one.
    Raises PlanBuildError, PlanRefusedError, ProviderUnavailableError or PlanOptionError.
    """
    bundle = Bundle.open(path, plans=False)
    check_precision(bundle, target.library)
    specs = plan_specs(bundle, target, request)
    records: dict[str, PlanRecord] = {}
    for spec in specs:
        record = finished_plan(path, bundle.manifest, spec)
        if record is not None:
            records[spec.name] = record
            display.say(f"{spec.name}: unchanged, kept")
    kept = tuple(records)
    jobs = [plan_job(bundle, spec) for spec in specs if spec.name not in records]
    for job in jobs:
        display.say(forecast(job, target).sentence())
    if jobs:
        bundle.require_models("building plans")
        display.say(told_room(bundle, jobs))
    for number, job in enumerate(jobs, 1):
        display.start(job.name, number, len(jobs), shares=target.library.tells_progress)
        # The spec names these files by their digests, so they must be those of the manifest.
        bundle.quantized(job.spec.quantization).verify_component(job.spec.component)
        record = PlanRecord(
            spec=job.spec,
            built=_built(job, target, display, build),
            built_on=target.built_on(),
        )
        half = _in_half(job.spec, records.values())
        if half is not None:
            proven_activations(job.name, record.built, half.built)
        write_journal(path, record)
        records[job.name] = record
        display.say(_result(record))
    manifest = bundle.manifest
    listed = [plan.spec for plan in manifest.plans]
    if jobs or any(record.spec not in listed for record in records.values()):
        others = {
            plan.spec.name: plan
            for plan in plans_on(bundle, target.library, target.architectures, target.version)
            if plan_file(path, plan) is not None
        }
        if target.gpu is not None:
            compare_pictures(path, manifest, list((others | records).values()))
        manifest = publish(path, manifest, records.values())
    return PlansBuilt(manifest=manifest, built=tuple(job.name for job in jobs), kept=kept)


def plan_job(bundle: Bundle, spec: PlanSpec) -> PlanJob:
    """What a process needs to build one plan."""
    record = bundle.quantized(spec.quantization).component(spec.component)
    library, recipe = LIBRARIES[spec.library], _recipe(bundle, spec)
    path = bundle.path.resolve()
    staging = staging_folder(path)
    return PlanJob(
        spec=spec,
        precision=bundle.manifest.precision,
        dimensions=bundle.manifest.dimensions,
        optimization_level=spec.options.optimization_level,
        weights_nbytes=record.onnx_nbytes(),
        quantized_nodes=() if recipe is None else recipe.nodes,
        stored_nodes=() if recipe is None else recipe.weights,
        onnx=path / record.onnx,
        cpu_onnx=path / record.cpu_onnx,
        plan=staging / f"{spec.name}.plan",
        log=staging / f"{spec.name}.log",
        timing_cache=working_timing_cache(path) if library.has_timing_cache else staging / "none",
    )


def _architectures(target: PlanTarget, quantization: Quantization | None) -> tuple[int, ...] | None:
    """What a plan is built for: those of the target that multiply in its formats; None for none."""
    if quantization is None:
        return target.architectures
    least = LEAST_ARCHITECTURE[quantization]
    asked = target.architectures or target.library.without_being_asked
    able = tuple(each for each in asked if each >= least)
    if able == asked:
        return target.architectures
    return able or None


def _recipe(bundle: Bundle, spec: PlanSpec) -> QuantizationRecipe | None:
    """What a plan must have in 8 bits, by the recipe and never by the graph."""
    if spec.quantization is None:
        return None
    return bundle.manifest.components[spec.component].quantized[spec.quantization].recipe


def _in_half(spec: PlanSpec, records: Iterable[PlanRecord]) -> PlanRecord | None:
    """The half-precision plan beside one in 8 bits: alike but for its graph, and perhaps for more
    architectures, as fewer of them multiply in 8 bits."""

    def twin(record: PlanRecord) -> PlanSpec:
        own = record.spec
        return replace(
            spec, quantization=None, onnx_digest=own.onnx_digest, architectures=own.architectures
        )

    if spec.quantization is None:
        return None
    return next((record for record in records if twin(record) == record.spec), None)


def _built(job: PlanJob, target: PlanTarget, display: Display, build: BuildPlan) -> BuiltPlan:
    """Build one plan, once more at a lower level if memory runs out and there are levels."""
    expected = forecast(job, target)
    if not expected.fits:
        raise PlanMemoryError(f"{job.name} does not fit {expected.where}: {expected.sentence()}")
    try:
        return build(job, display.event)
    except PlanMemoryError as error:
        if not (job.optimization_level and target.library.has_optimization_levels):
            raise _out_of_memory(job, target, error) from error
    job = replace(job, optimization_level=job.optimization_level - 1)
    display.say(
        f"{job.name}: out of memory; once more at optimization level {job.optimization_level}"
    )
    try:
        return build(job, display.event)
    except PlanMemoryError as error:
        raise _out_of_memory(job, target, error) from error


def _out_of_memory(job: PlanJob, target: PlanTarget, error: PlanMemoryError) -> PlanMemoryError:
    if target.gpu is None:
        limit = job.spec.options.workspace_mib
        more = "" if limit is None else f" Allow layers more scratch than --workspace-mib {limit}"
        return PlanMemoryError(f"{error}. {forecast(job, target).sentence()}.{more}")
    return PlanMemoryError(
        f"{error}. {forecast(job, target).sentence()}. Limit the scratch memory with "
        "--workspace-mib, or end what else uses the GPU",
        fix="nvidia-smi",
    )


def _result(record: PlanRecord) -> str:
    built, proofs, parity = record.built, record.built.proofs, record.built.parity
    if proofs.layers is None:
        layers = "the types of its layers not told"
    else:
        layers = f"{proofs.layers.half_layers} of {proofs.layers.compute_layers} computing layers "
        layers += f"in half precision ({proofs.layers.told_by})"
    if proofs.attention is not None and proofs.attention.nodes:
        layers += f", {proofs.attention.fused} of {proofs.attention.nodes} attentions fused"
    if proofs.quantized is not None:
        layers += f", {proofs.quantized.nodes} products in 8 bits"
        if stored := proofs.quantized.stored:
            layers += f" and the weights of {stored} more"
    compared = (
        "executed on no GPU"
        if parity is None
        else f"within {parity.relative_l2:.1e} of the CPU (bound {parity.bound:.1e})"
    )
    return (
        f"{record.spec.name}: {built.file.nbytes / 2**20:.1f} MiB in {built.build_s:.0f} s, "
        f"{built.device_memory_nbytes / 2**20:.1f} MiB of activations, {layers}, {compared}"
    )
