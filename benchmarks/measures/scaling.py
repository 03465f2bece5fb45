"""Cost against steps, size, people and images, fitted, beside the FLOPs that each should take.

python -m benchmarks scaling [--quick] [--bundle BUNDLE] [--threads N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.analysis.costs import Cost, cost_of
from benchmarks.analysis.fits import exponent, line
from benchmarks.analysis.stats import summary
from benchmarks.harness.backends import gpu_of, opened_backend
from benchmarks.harness.bundle_facts import bundle_facts
from benchmarks.harness.flags import add_bundle_flags, add_provider_flag
from benchmarks.harness.model_source import source_name, source_of
from benchmarks.harness.record import Status, record
from benchmarks.harness.reference_check import Reference
from benchmarks.harness.timing import repeated_ms
from benchmarks.harness.workload import SEED, Workload
from engines.bundle.folder import Bundle
from engines.bundle.manifest import Dimensions
from engines.contract import LATENT_PX, SIZE_MULTIPLE_PX, Component
from export.checkpoint.checkpoint import ModelSource
from runtime import FaceDiffuser, Stage

PICTURES, QUICK_PICTURES = 5, 2
# The middle of the other axes; enough steps for every stage to have some.
BASE, QUICK_BASE = Workload(steps=10, people=2), Workload(steps=3, people=2)
STEPS, QUICK_STEPS = (10, 20, 30, 50), (3, 6)
PEOPLE, QUICK_PEOPLE = (1, 2, 3), (1, 2)
IMAGES, QUICK_IMAGES = (1, 2, 4), (1, 2)
# Of the model's own size: 512, 640 and 768 px for Stable Diffusion 1.5.
SIZES, QUICK_SIZES = (1.0, 1.25, 1.5), (1.0, 1.5)

CostOf = Callable[..., Cost]


def add_flags(flags: argparse.ArgumentParser) -> None:
    add_bundle_flags(flags)
    add_provider_flag(flags)
    flags.add_argument("--pictures", type=int, help=f"at each point (default: {PICTURES})")


def measured(
    *,
    quick: bool,
    bundle: Path,
    threads: int | None,
    provider: str,
    pictures: int | None,
    **source: Any,
) -> dict[str, Any]:
    """A row per point of each axis; raises ReferenceMismatchError."""
    opened = Bundle.open(bundle)
    checkpoint = source_of(source_name(source, opened), opened)
    reference = Reference(checkpoint, opened.manifest)
    dimensions = opened.manifest.dimensions
    count = pictures or (QUICK_PICTURES if quick else PICTURES)
    costs = counted(checkpoint, dimensions)
    measured_once: dict[Workload, float] = {}
    rows = []
    with opened_backend(bundle, provider, threads) as backend:
        agreement = reference.check(backend.face_diffuser)
        for axis, value, workload in points(dimensions.native_px, quick=quick):
            if workload not in measured_once:
                measured_once[workload] = median_ms(backend.face_diffuser, workload, count)
            spent, flop = measured_once[workload], picture_flop(workload, costs)
            rows.append(
                {
                    "axis": axis,
                    "value": value,
                    "status": Status.MEASURED.value,
                    "p50_ms": spent,
                    "flop": flop,
                    "gflop_per_s": flop / spent / 1e6,
                }
            )
    facts = bundle_facts(opened, threads) | {
        "provider": provider,
        "base": vars(QUICK_BASE if quick else BASE),
        "pictures": count,
        "agreement": agreement.to_json(),
        "fits": fits(rows),
    }
    return record("scaling", rows, gpu=gpu_of(provider), facts=facts, seeds=[SEED])


def points(native_px: int, *, quick: bool) -> list[tuple[str, int, Workload]]:
    """(axis, value, workload): one axis moves, the others stay at the base's."""
    base = replace(QUICK_BASE if quick else BASE, size_px=native_px)
    sizes = {_px(share * native_px) for share in (QUICK_SIZES if quick else SIZES)}
    return [
        *(("steps", n, replace(base, steps=n)) for n in (QUICK_STEPS if quick else STEPS)),
        *(("size_px", n, replace(base, size_px=n)) for n in sorted(sizes)),
        *(("people", n, replace(base, people=n)) for n in (QUICK_PEOPLE if quick else PEOPLE)),
        *(("images", n, replace(base, images=n)) for n in (QUICK_IMAGES if quick else IMAGES)),
    ]


def median_ms(face_diffuser: FaceDiffuser, workload: Workload, pictures: int) -> float:
    request = workload.request()
    times = repeated_ms(lambda: face_diffuser.generate(request), repeats=pictures)
    return summary(times).p50


def counted(source: ModelSource, dimensions: Dimensions) -> CostOf:
    """cost_of for this model, each case counted once."""

    @cache
    def cost(component: Component, **sizes: int) -> Cost:
        return cost_of(component, source, dimensions, sizes)

    return cost


def picture_flop(workload: Workload, cost: CostOf) -> int:
    """FLOPs of all engine calls of a request of this size (guidance rule of the paper)."""
    side = (workload.size_px or 0) // LATENT_PX
    area = {"images": workload.images, "h": side, "w": side}
    tdm = cost(Component.TDM_UNET, rows=2 * workload.images, **area).flops
    sdm = cost(Component.SDM_UNET, rows=3 * workload.images, **area).flops
    by_stage = {Stage.SCENE: tdm, Stage.FUSION: tdm + sdm, Stage.SUBJECT: sdm}
    boundaries = workload.request().boundaries(workload.steps)
    steps = sum(by_stage[boundaries.stage(step)] for step in range(workload.steps))
    decode = workload.images * cost(Component.VAE_DECODER, images=1, h=side, w=side).flops
    photos = workload.people * cost(Component.IMAGE_ENCODER, n=1).flops
    texts = cost(Component.TEXT_ENCODER, n=3).flops + cost(Component.FUSION_MLP, n=1).flops
    return steps + decode + photos + texts


def fits(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per axis: milliseconds and FLOPs, each as a line, or by size as a power."""
    found: dict[str, dict[str, float]] = {}
    for axis in dict.fromkeys(row["axis"] for row in rows):
        points_of_axis = [row for row in rows if row["axis"] == axis]
        x = [float(row["value"]) for row in points_of_axis]
        ms = [row["p50_ms"] for row in points_of_axis]
        flop = [float(row["flop"]) for row in points_of_axis]
        if axis == "size_px":
            found[axis] = {"power_of_ms": exponent(x, ms), "power_of_flop": exponent(x, flop)}
        else:
            time, work = line(x, ms), line(x, flop)
            found[axis] = {
                "intercept_ms": time.intercept, "slope_ms": time.slope, "r2": time.r2,
                "intercept_flop": work.intercept, "slope_flop": work.slope,
            }  # fmt: skip
    return found


def _px(size: float) -> int:
    """The nearest size that a picture can have."""
    return max(1, round(size / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX
