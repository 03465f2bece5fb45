"""The last check of new plans: the runtime draws the same with them as on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.bundle.candidate import (
    CandidateError,
    CheckRequest,
    Draw,
    Float32Array,
    candidate,
)
from engines.bundle.manifest import Manifest
from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.engine import Provider
from engines.errors import PlanBuildError, PlanRefusedError
from engines.gate import PLAN_PIPELINE_BOUNDS, relative_l2
from engines.guides import GuidanceRule
from engines.plans.store import plan_file

_PROVIDERS = (Provider.TENSORRT, Provider.ONNXRUNTIME_CPU)


def compare_pictures(
    draw: Draw, bundle: Path, manifest: Manifest, records: list[PlanRecord]
) -> float | None:
    """Draw final latents with new plans and on the CPU; returns their relative L2 distance.

    Returns None, having compared nothing, where a component has no plan yet. Raises
    PlanRefusedError if the pictures differ, PlanBuildError if one cannot be drawn.
    """
    if {record.spec.component for record in records} != set(Component):
        return None
    size = manifest.dimensions
    # The native size is one that every profile takes.
    request = CheckRequest(
        latent_channels=size.latent_channels,
        side_px=size.native_px,
        guidance_rule=GuidanceRule.PAPER,
    )
    plans = {record.spec.path: _whole(bundle, record) for record in records}
    with candidate(bundle, replace(manifest, plans=records, timing_cache={}), plans) as folder:
        found, expected = (_drawn(draw, folder, request, provider) for provider in _PROVIDERS)
    if not np.isfinite(found).all():
        raise PlanRefusedError("the runtime draws NaN or infinity with these plans; not published")
    error = relative_l2(found, expected)
    bound = PLAN_PIPELINE_BOUNDS[manifest.precision]
    if not error <= bound:
        raise PlanRefusedError(
            f"with these plans the runtime draws latents {error:.2e} from the CPU's (relative L2), "
            f"the bound is {bound:.0e}; the plans are not published; every plan passed alone, so "
            "report this with the build logs"
        )
    return error


def _drawn(draw: Draw, folder: Path, request: CheckRequest, provider: Provider) -> Float32Array:
    try:
        return request.drawn(draw, folder, "--provider", provider)
    except CandidateError as error:
        raise PlanBuildError(
            f"the runtime cannot draw on {provider} with these plans: {error}"
        ) from error


def _whole(bundle: Path, record: PlanRecord) -> Path:
    source = plan_file(bundle, record)
    if source is None:
        raise PlanBuildError(f"{record.spec.name} vanished while plans were built; build again")
    return source
