"""Building a bundle's plans: what is missing, one process each, a picture to compare, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engines.bundle.folder import Bundle
from engines.bundle.manifest import Manifest
from engines.bundle.plan_record import (
    PLANS_FOLDER,
    PlanParity,
    PlanPrecision,
    PlanRecord,
    plan_key,
    plan_name,
)
from engines.cli.progress import Display
from engines.contract import Component
from engines.errors import PlanBuildError
from engines.plans.child import OnEvent, plan_in_process
from engines.plans.forecast import forecast
from engines.plans.job import PlanJob
from engines.plans.plan_from_onnx import PlanMemoryError
from engines.plans.profiles import (
    DEFAULT_PROFILE,
    FIXED_PROFILE,
    PROFILES,
    PlanOptions,
    plan_profile,
    profile_named,
)
from engines.plans.shapes import shape_ranges
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

BuildPlan = Callable[[PlanJob, OnEvent], dict[str, Any]]
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


def plan_jobs(bundle: Bundle, machine: Machine, request: PlanRequest) -> list[PlanJob]:
    """Every plan that a request asks for, each once; raises PlanOptionError."""
    jobs: dict[str, PlanJob] = {}
    for profile_name in request.profiles:
        asked = profile_named(profile_name)
        for component in request.components:
            serving = plan_profile(component, asked)
            name = plan_name(component, serving, machine.architecture)
            if name not in jobs:
                jobs[name] = _job(bundle, machine, request.options, component, serving)
    return list(jobs.values())


def build_plans(
    path: Path,
    machine: Machine,
    request: PlanRequest,
    display: Display,
    compare_pictures: ComparePictures,
    build: BuildPlan = plan_in_process,
) -> PlansBuilt:
    """Build what is missing of a bundle's plans on this machine and publish it.

    Plans that an earlier build finished from the same are kept. A plan that is not in half
    precision, drifts or is not finite is never published, nor are plans that draw another picture.
    Raises PlanBuildError, PlanRefusedError, ProviderUnavailableError or PlanOptionError.
    """
    bundle = Bundle.open(path, plans=False)
    jobs = plan_jobs(bundle, machine, request)
    records: dict[str, PlanRecord] = {}
    for job in jobs:
        record = finished_plan(path, bundle.manifest, job.name, job.key)
        if record is not None:
            records[job.name] = record
            display.say(f"{job.name}: unchanged, kept")
    missing = [job for job in jobs if job.name not in records]
    for job in missing:
        display.say(forecast(job, machine).sentence())
    for number, job in enumerate(missing, 1):
        display.start(job.name, number, len(missing))
        # The key stands for these files' digests, so they must be those of the manifest.
        bundle.verify_component(job.component)
        record = _built(job, machine, display, build)
        write_journal(path, record)
        records[job.name] = record
        display.say(_result(record))
    listed = {plan.key for plan in bundle.manifest.plans}
    manifest = bundle.manifest
    if any(record.key not in listed for record in records.values()) or missing:
        others = {
            plan.name: plan
            for plan in plans_on(bundle, machine.architecture, machine.tensorrt)
            if plan_file(path, plan) is not None
        }
        compare_pictures(path, manifest, list((others | records).values()))
        manifest = publish(path, manifest, records.values())
    return PlansBuilt(
        manifest=manifest,
        built=tuple(job.name for job in missing),
        kept=tuple(name for name in records if name not in {job.name for job in missing}),
    )


def _job(
    bundle: Bundle, machine: Machine, options: PlanOptions, component: Component, profile: str
) -> PlanJob:
    record = bundle.component(component)
    # Encoders have the same shapes in every profile.
    shapes = shape_ranges(
        component,
        PROFILES[DEFAULT_PROFILE if profile == FIXED_PROFILE else profile],
        bundle.manifest.dimensions,
    )
    name = plan_name(component, profile, machine.architecture)
    path, staging = bundle.path.resolve(), staging_folder(bundle.path.resolve())
    key = plan_key(record.onnx_digest(), machine.tensorrt, machine.architecture, shapes, options)
    return PlanJob(
        component=component,
        profile=profile,
        architecture=machine.architecture,
        precision=bundle.manifest.precision,
        dimensions=bundle.manifest.dimensions,
        shapes=shapes,
        options=options,
        optimization_level=options.optimization_level,
        key=key,
        onnx_digest=record.onnx_digest(),
        weights_nbytes=record.onnx_nbytes(),
        onnx=path / record.onnx,
        cpu_onnx=path / record.cpu_onnx,
        plan=staging / f"{name}.plan",
        log=staging / f"{name}.log",
        timing_cache=working_timing_cache(path),
    )


def _built(job: PlanJob, machine: Machine, display: Display, build: BuildPlan) -> PlanRecord:
    """Build one plan, once more at a lower level if memory runs out."""
    expected = forecast(job, machine)
    if not expected.fits:
        raise PlanMemoryError(f"{job.name} does not fit this GPU: {expected.sentence()}")
    try:
        outcome = build(job, display.event)
    except PlanMemoryError as error:
        if not job.optimization_level:
            raise _out_of_memory(job, machine, error) from error
        job = replace(job, optimization_level=job.optimization_level - 1)
        display.say(
            f"{job.name}: out of memory; once more at optimization level {job.optimization_level}"
        )
        try:
            outcome = build(job, display.event)
        except PlanMemoryError as second:
            raise _out_of_memory(job, machine, second) from second
    return PlanRecord(
        component=job.component,
        profile=job.profile,
        architecture=job.architecture,
        tensorrt=machine.tensorrt,
        cuda=machine.cuda,
        driver=machine.driver,
        gpu=machine.gpu,
        options=job.options,
        optimization_level=job.optimization_level,
        key=job.key,
        onnx_digest=job.onnx_digest,
        path=f"{PLANS_FOLDER}/{job.plan.name}",
        shapes=job.shapes,
        nbytes=outcome["nbytes"],
        sha256=outcome["sha256"],
        build_s=outcome["build_s"],
        device_memory_nbytes=outcome["device_memory_nbytes"],
        precision=PlanPrecision(**outcome["precision"]),
        parity=PlanParity(**outcome["parity"]),
    )


def _out_of_memory(job: PlanJob, machine: Machine, error: PlanMemoryError) -> PlanBuildError:
    return PlanMemoryError(
        f"{error}. {forecast(job, machine).sentence()}. Limit the scratch memory with "
        "--workspace-mib, or end what else uses the GPU: nvidia-smi"
    )


def _result(record: PlanRecord) -> str:
    precision, parity = record.precision, record.parity
    return (
        f"{record.name}: {record.nbytes / 2**20:.1f} MiB in {record.build_s:.0f} s, "
        f"{precision.half_layers} of {precision.layers} layers in half precision, "
        f"within {parity.relative_l2:.1e} of the CPU (bound {parity.bound:.1e})"
    )
