"""The last check of new plans: the runtime draws the same with them as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from engines.bundle.candidate import (
    CandidateError,
    CheckRequest,
    Draw,
    candidate,
)
from engines.bundle.manifest import Manifest
from engines.bundle.plan_record import PlanRecord
from engines.contract import Component
from engines.engine import Provider
from engines.errors import PlanBuildError, PlanRefusedError
from engines.gate import (
    PLAN_PIPELINE_BOUNDS,
    SIDES_BOUND,
    SIDES_MARGIN,
    changed_sides,
    relative_l2,
)
from engines.guides import GuidanceRule
from engines.plans.store import plan_file

T = TypeVar("T")
_REPORT = "the plans are not published; every plan passed alone, so report this with the build logs"
_PROVIDERS = (Provider.TENSORRT, Provider.ONNXRUNTIME_CPU)


def compare_pictures(
    draw: Draw, bundle: Path, manifest: Manifest, records: list[PlanRecord]
) -> float | None:
    """Draw final latents with new plans and on the CPU; returns their relative L2 distance.

    Noises are averaged for that, so that no pixel can change sides and the distance follows from
    the components'. Which model a pixel goes to is compared by itself. Returns None, having
    compared nothing, where a component has no plan yet. Raises PlanRefusedError if the pictures
    differ, PlanBuildError if one cannot be drawn.
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
        found, expected = (
            _drawing(provider, request.drawn, draw, folder, "--fusion", "addition")
            for provider in _PROVIDERS
        )
        there, here = (
            _drawing(provider, request.drawn_sides, draw, folder) for provider in _PROVIDERS
        )
    if not np.isfinite(found).all():
        raise PlanRefusedError("the runtime draws NaN or infinity with these plans; not published")
    error = relative_l2(found, expected)
    bound = PLAN_PIPELINE_BOUNDS[manifest.precision]
    if not error <= bound:
        raise PlanRefusedError(
            f"with these plans the runtime draws latents {error:.2e} from the CPU's (relative L2), "
            f"the bound is {bound:.1e}; {_REPORT}"
        )
    margin = SIDES_MARGIN[manifest.precision]
    share = changed_sides(there, here, margin)
    if not share <= SIDES_BOUND:
        raise PlanRefusedError(
            f"with these plans {share:.1%} of the pixels go to the other model, though their "
            f"saliencies differ by more than {margin:.0e} on the CPU; the bound is "
            f"{SIDES_BOUND:.0%}; {_REPORT}"
        )
    return error


def _drawing(provider: Provider, drawn: Callable[..., T], *words: object) -> T:
    try:
        return drawn(*words, "--provider", provider)
    except CandidateError as error:
        raise PlanBuildError(
            f"the runtime cannot draw on {provider} with these plans: {error}"
        ) from error


def _whole(bundle: Path, record: PlanRecord) -> Path:
    source = plan_file(bundle, record)
    if source is None:
        raise PlanBuildError(f"{record.spec.name} vanished while plans were built; build again")
    return source
