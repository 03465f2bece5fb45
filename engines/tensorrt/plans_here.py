"""Which of a bundle's TensorRT plans this machine can run, and what to type where there is none."""

from __future__ import annotations

from engines import commands
from engines.bundle.folder import Bundle
from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.errors import PlanMismatchError


def plans_for(
    bundle: Bundle, architecture: int, tensorrt_version: str
) -> dict[Component, list[PlanRecord]]:
    """A bundle's plans for one GPU architecture and one version of TensorRT, by component.

    Every component has at least one, and each was built from the ONNX model that the bundle holds.
    Raises PlanMismatchError saying what the plans are for, what this machine is, what to type.
    """
    manifest = bundle.manifest
    fix = commands.plans_built(bundle.path)
    if not manifest.plans:
        raise PlanMismatchError(
            f"{bundle.path} has no TensorRT plans; build its plans here with", fix=fix
        )
    here = [plan for plan in _current(bundle) if plan.spec.architecture == architecture]
    if not here:
        found = ", ".join(sorted({f"sm_{plan.spec.architecture}" for plan in manifest.plans}))
        raise PlanMismatchError(
            f"{bundle.path} was built for GPU {found}, this machine has sm_{architecture}; "
            "rebuild its plans here with",
            fix=fix,
        )
    fitting = plans_on(bundle, architecture, tensorrt_version)
    if not fitting:
        found = ", ".join(sorted({plan.spec.tensorrt for plan in here}))
        raise PlanMismatchError(
            f"{bundle.path} was built with TensorRT {found}, this machine has {tensorrt_version}; "
            "rebuild its plans here with",
            fix=fix,
        )
    plans = {
        component: [plan for plan in fitting if plan.spec.component is component]
        for component in Component
    }
    if missing := [component.value for component in Component if not plans[component]]:
        raise PlanMismatchError(
            f"{bundle.path} has no plan of {', '.join(missing)} for sm_{architecture} and TensorRT "
            f"{tensorrt_version}; build its plans here with",
            fix=fix,
        )
    return plans


def plans_on(bundle: Bundle, architecture: int, tensorrt_version: str) -> list[PlanRecord]:
    """The plans that run on an architecture with a version of TensorRT, complete or not."""
    return [
        plan
        for plan in _current(bundle)
        if plan.spec.architecture == architecture and plan.spec.tensorrt == tensorrt_version
    ]


def _current(bundle: Bundle) -> list[PlanRecord]:
    """Plans that were built from the ONNX models which the bundle holds."""
    components = bundle.manifest.components
    return [
        plan
        for plan in bundle.manifest.plans
        if plan.spec.onnx_digest == components[plan.spec.component].onnx_digest()
    ]
