"""Which of a bundle's TensorRT plans this machine can run, and what to type where there is none."""

from __future__ import annotations

from collections.abc import Iterable

from engines.bundle.folder import Bundle
from engines.bundle.plan_record import PlanRecord
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import PlanMismatchError
from engines.tensorrt.libraries import (
    TENSORRT,
    Library,
    in_words,
    instead_on,
    is_for,
    words_for,
)


def plans_for(
    bundle: Bundle, library: Library, architecture: int, version: str
) -> dict[Component, list[PlanRecord]]:
    """A bundle's plans of a library for one GPU architecture and one version, by component.

    Every component has at least one, and each was built from the ONNX model that the bundle holds.
    Raises PlanMismatchError saying what the plans are for, what this machine is, what to type.
    """
    ours = [plan for plan in bundle.manifest.plans if plan.spec.library is library.name]
    fix = bundle.plans_built(*words_for(library, architecture))
    refused = _not_served(library, architecture)
    if not ours:
        raise PlanMismatchError(
            f"{bundle.path} has no {library.title} plans{refused}; build its plans here with",
            fix=fix,
        )
    here = [plan for plan in _current(bundle, library) if is_for(plan.spec, architecture)]
    if not here:
        found = ", ".join(sorted({in_words(library, plan.spec.architectures) for plan in ours}))
        raise PlanMismatchError(
            f"{bundle.path} was built for GPU {found}, this machine has sm_{architecture}{refused};"
            " rebuild its plans here with",
            fix=fix,
        )
    fitting = [plan for plan in here if plan.spec.version == version]
    if not fitting:
        found = ", ".join(sorted({plan.spec.version for plan in here}))
        raise PlanMismatchError(
            f"{bundle.path} was built with {library.title} {found}, this machine has {version}; "
            "rebuild its plans here with",
            fix=fix,
        )
    plans = {
        component: [plan for plan in fitting if plan.spec.component is component]
        for component in Component
    }
    if missing := [component.value for component in Component if not plans[component]]:
        raise PlanMismatchError(
            f"{bundle.path} has no plan of {', '.join(missing)} for sm_{architecture} and "
            f"{library.title} {version}; build its plans here with",
            fix=fix,
        )
    return plans


def fusion_nbytes(plans: Iterable[PlanRecord]) -> int:
    """The least device memory of a fusion step, which runs both U-Nets: weights and activations.

    0 where there is no plan of one of them.
    """
    needs: dict[Component, list[int]] = {component: [] for component in NOISE_PREDICTORS}
    for plan in plans:
        if plan.spec.component in needs:
            need = plan.built.resident_nbytes + plan.built.device_memory_nbytes
            needs[plan.spec.component].append(need)
    return sum(map(min, needs.values())) if all(needs.values()) else 0


def plans_on(
    bundle: Bundle, library: Library, architectures: tuple[int, ...], version: str
) -> list[PlanRecord]:
    """The plans of a target, complete or not."""
    return [
        plan
        for plan in _current(bundle, library)
        if plan.spec.architectures == architectures and plan.spec.version == version
    ]


def _not_served(library: Library, architecture: int) -> str:
    """Why this library's plans are not for a GPU, as a clause."""
    reason = None if library is TENSORRT else instead_on(architecture)
    return "" if reason is None else f" ({reason})"


def _current(bundle: Bundle, library: Library) -> list[PlanRecord]:
    """A library's plans that were built from the ONNX models which the bundle holds."""
    return [
        plan
        for plan in bundle.manifest.plans
        if plan.spec.library is library.name
        and plan.spec.onnx_digest == bundle.component(plan.spec.component).onnx_digest()
    ]
