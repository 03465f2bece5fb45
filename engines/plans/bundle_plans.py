"""Building a bundle's plans: what is missing, one process each, a picture to compare, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Manifest
from engines.bundle.plan_record import BuiltOn, BuiltPlan, PlanOptions, PlanRecord, PlanSpec
from engines.cli.progress import Display
from engines.contract import Component
from engines.errors import PlanMemoryError
from engines.plans.child import OnEvent, plan_in_process
from engines.plans.forecast import forecast
from engines.plans.job import PlanJob
from engines.plans.profiles import (
    DEFAULT_PROFILE,
    FIXED_PROFILE,
    PROFILES,
    plan_profile,
    profile_named,
    shape_ranges,
)
from engines.plans.store import (
    finished_plan,
    plan_file,
    publish,
    staging_folder,
    working_timing_cache,
    write_journal,
)
from engines.tensorrt.machine import Machine
from engines.tensorrt.plans_here import plans_on

BuildPlan = Callable[[PlanJob, OnEvent], BuiltPlan]
# Compares what the bundle draws with these plans and without; raises PlanRefusedError.
ComparePictures = Callable[[Path, Manifest, list[PlanRecord]], None]


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Which plans to build."""

    profiles: tuple[str, ...] = (DEFAULT_PROFILE,)
    components: tuple[Component, ...] = tuple(Component)
    options: PlanOptions = field(default_factory=PlanOptions)


@dataclass(frozen=True, kw_only=True)
class PlansBuilt:
    """What a build did: names of plans that were built, and of those that were there already."""

    manifest: Manifest
    built: tuple[str, ...]
    kept: tuple[str, ...]


def plan_specs(bundle: Bundle, machine: Machine, request: PlanRequest) -> list[PlanSpec]:
    """Every plan that a request asks for, each once; raises PlanOptionError."""
    specs: dict[str, PlanSpec] = {}
    for profile_name in request.profiles:
        asked = profile_named(profile_name)
        for component in request.components:
            profile = plan_profile(component, asked)
            spec = _spec(bundle, machine, request.options, component, profile)
            specs.setdefault(spec.name, spec)
    return list(specs.values())


def build_plans(
    path: Path,
    machine: Machine,
    request: PlanRequest,
    display: Display,
    compare_pictures: ComparePictures,
    build: BuildPlan = plan_in_process,
) -> PlansBuilt:
    """Build what is missing of a bundle's plans on this machine and publish it.

    Plans that an earlier build finished to the same spec are kept. A plan that is not in half
    precision, drifts or is not finite is never published, nor are plans that draw another picture.
    Raises PlanBuildError, PlanRefusedError, ProviderUnavailableError or PlanOptionError.
    """
    bundle = Bundle.open(path, plans=False)
    specs = plan_specs(bundle, machine, request)
    records: dict[str, PlanRecord] = {}
    for spec in specs:
        record = finished_plan(path, bundle.manifest, spec)
        if record is not None:
            records[spec.name] = record
            display.say(f"{spec.name}: unchanged, kept")
    kept = tuple(records)
    jobs = [plan_job(bundle, spec) for spec in specs if spec.name not in records]
    for job in jobs:
        display.say(forecast(job, machine).sentence())
    for number, job in enumerate(jobs, 1):
        display.start(job.name, number, len(jobs))
        # The spec names these files by their digests, so they must be those of the manifest.
        bundle.verify_component(job.spec.component)
        record = PlanRecord(
            spec=job.spec,
            built=_built(job, machine, display, build),
            built_on=BuiltOn(gpu=machine.gpu, driver=machine.driver, cuda=machine.cuda),
        )
        write_journal(path, record)
        records[job.name] = record
        display.say(_result(record))
    manifest = bundle.manifest
    listed = [plan.spec for plan in manifest.plans]
    if jobs or any(record.spec not in listed for record in records.values()):
        others = {
            plan.spec.name: plan
            for plan in plans_on(bundle, machine.architecture, machine.tensorrt)
            if plan_file(path, plan) is not None
        }
        compare_pictures(path, manifest, list((others | records).values()))
        manifest = publish(path, manifest, records.values())
    return PlansBuilt(manifest=manifest, built=tuple(job.name for job in jobs), kept=kept)


def plan_job(bundle: Bundle, spec: PlanSpec) -> PlanJob:
    """What a process needs to build one plan."""
    record = bundle.component(spec.component)
    path = bundle.path.resolve()
    staging = staging_folder(path)
    return PlanJob(
        spec=spec,
        precision=bundle.manifest.precision,
        dimensions=bundle.manifest.dimensions,
        optimization_level=spec.options.optimization_level,
        weights_nbytes=record.onnx_nbytes(),
        onnx=path / record.onnx,
        cpu_onnx=path / record.cpu_onnx,
        plan=staging / f"{spec.name}.plan",
        log=staging / f"{spec.name}.log",
        timing_cache=working_timing_cache(path),
    )


def _spec(
    bundle: Bundle, machine: Machine, options: PlanOptions, component: Component, profile: str
) -> PlanSpec:
    # Encoders have the same shapes in every profile.
    sizes = PROFILES[DEFAULT_PROFILE if profile == FIXED_PROFILE else profile]
    return PlanSpec(
        component=component,
        profile=profile,
        architecture=machine.architecture,
        tensorrt=machine.tensorrt,
        onnx_digest=bundle.component(component).onnx_digest(),
        shapes=shape_ranges(component, sizes, bundle.manifest.dimensions),
        options=options,
    )


def _built(job: PlanJob, machine: Machine, display: Display, build: BuildPlan) -> BuiltPlan:
    """Build one plan, once more at a lower level if memory runs out."""
    expected = forecast(job, machine)
    if not expected.fits:
        raise PlanMemoryError(f"{job.name} does not fit this GPU: {expected.sentence()}")
    try:
        return build(job, display.event)
    except PlanMemoryError as error:
        if not job.optimization_level:
            raise _out_of_memory(job, machine, error) from error
    job = replace(job, optimization_level=job.optimization_level - 1)
    display.say(
        f"{job.name}: out of memory; once more at optimization level {job.optimization_level}"
    )
    try:
        return build(job, display.event)
    except PlanMemoryError as error:
        raise _out_of_memory(job, machine, error) from error


def _out_of_memory(job: PlanJob, machine: Machine, error: PlanMemoryError) -> PlanMemoryError:
    return PlanMemoryError(
        f"{error}. {forecast(job, machine).sentence()}. Limit the scratch memory with "
        "--workspace-mib, or end what else uses the GPU",
        fix="nvidia-smi",
    )


def _result(record: PlanRecord) -> str:
    built, precision, parity = record.built, record.built.layer_precision, record.built.parity
    return (
        f"{record.spec.name}: {built.file.nbytes / 2**20:.1f} MiB in {built.build_s:.0f} s, "
        f"{precision.half_layers} of {precision.layers} layers in half precision, "
        f"within {parity.relative_l2:.1e} of the CPU (bound {parity.bound:.1e})"
    )
