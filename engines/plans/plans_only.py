"""A bundle for an appliance: its plans alone, without the ONNX models that they were built from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from engines.bundle.files import write_atomic
from engines.bundle.folder import ONNX_FOLDER, Bundle
from engines.bundle.manifest import MANIFEST_NAME, Manifest
from engines.contract import Component
from engines.errors import PlanBuildError

GIVEN_UP = (
    "drawing on CPUs and with ONNX Runtime or OpenVINO, plans for other GPUs, sizes and versions, "
    "comparing plans with the CPU, export.bisect"
)


def keep_plans_only(path: Path) -> str:
    """Drop a bundle's ONNX models, and say in a sentence what that gives up.

    The caller holds the bundle's build lock. At every moment the bundle opens. Raises
    PlanBuildError, having dropped nothing, unless plans of one target are there for everything.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    if missing := _missing(manifest):
        raise PlanBuildError(
            f"{path} has no plan of {', '.join(missing)}, so its ONNX models are kept; plans alone "
            "draw where every component has one"
        )
    nbytes = sum(file.nbytes for file in manifest.model_files().values())
    if not manifest.plans_only:
        alone = replace(manifest, plans_only=True)
        write_atomic(path / MANIFEST_NAME, alone.to_json().encode())
    # A build that was killed here has left some.
    shutil.rmtree(path / ONNX_FOLDER, ignore_errors=True)
    unproved = sum(plan.built.parity is None for plan in manifest.plans)
    never = f"; {unproved} plans were executed on no GPU and draw without it" if unproved else ""
    return (
        f"{path} holds plans alone now, {nbytes / 2**20:.1f} MiB of ONNX models were dropped; "
        f"given up: {GIVEN_UP}{never}"
    )


def _missing(manifest: Manifest) -> list[str]:
    """Components without a plan, for the target that has plans of most."""
    targets: dict[tuple[object, ...], set[Component]] = {}
    for plan in manifest.plans:
        spec = plan.spec
        if spec.onnx_digest == manifest.components[spec.component].onnx_digest():
            key = (spec.library, spec.architectures, spec.version)
            targets.setdefault(key, set()).add(spec.component)
    most = max(targets.values(), key=len, default=set())
    return [component.value for component in Component if component not in most]
