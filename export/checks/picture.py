"""The checks and the picture of a whole bundle, drawn as its users will draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engines.bundle.candidate import (
    FINAL_STEP,
    GUIDANCE_SCALE,
    PROMPT,
    START_MERGE_STEP,
    STEPS,
    CandidateError,
    CheckRequest,
    Draw,
    draw_from,
    references,
)
from engines.bundle.manifest import Manifest, Precision
from engines.engine import Provider
from engines.errors import BuildError
from engines.gate import PIPELINE_BOUNDS, relative_l2
from engines.guides import GuidanceRule
from export import shipped
from export.checks.parity import ParityError
from export.checks.torch_pipeline import TorchPipeline, TorchRequest
from export.source import ModelSource

PREVIEW_NAME = "preview.png"
# What the runtime is asked for beside prompt, references and seed, as its command line takes it.
PREVIEW = ("--num-inference-steps", "20")
# Random weights draw noise however large and long: at full size a step takes seconds and gigabytes.
NOISE_PREVIEW = ("--num-inference-steps", "3", "--height", "256", "--width", "256")

_SIDE_PX = 128
# The bounds are float32's, whatever computes faster here; and a build has memory for one engine.
_EXACT = ("--provider", Provider.ONNXRUNTIME_CPU.value, "--low-memory")


def pipeline_parity(
    draw: Draw, bundle: Path, source: ModelSource, manifest: Manifest
) -> dict[str, float]:
    """Draw the same latents with PyTorch and with the runtime, one step of each stage.

    Raises ParityError if they drift apart, BuildError if the runtime cannot draw. It holds one
    engine at a time.
    """
    size = manifest.dimensions
    request = CheckRequest(
        latent_channels=size.latent_channels,
        side_px=_SIDE_PX,
        guidance_rule=GuidanceRule.RELEASED,
    )
    pipeline = TorchPipeline(source, size, rounded_to_half=manifest.precision is Precision.FP16)
    expected = pipeline.final_latents(
        TorchRequest(
            prompt=PROMPT,
            references=references(bundle),
            latents=torch.from_numpy(request.latents()),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            start_merge_step=START_MERGE_STEP,
            final_step=FINAL_STEP,
        )
    ).numpy()
    del pipeline
    try:
        found = request.drawn(draw, bundle, *_EXACT)
    except CandidateError as error:
        raise _cannot_draw(error) from error
    distance = relative_l2(found, expected)
    bound = PIPELINE_BOUNDS[manifest.precision]
    if not distance <= bound:
        raise ParityError(
            f"the whole pipeline is {distance:.2e} from PyTorch's latents (relative L2), the bound "
            f"is {bound:.0e}; every component passed alone, so suspect prompt, references or "
            "schedule"
        )
    return {"relative_l2": distance, "bound": bound, "steps": STEPS}


def draw_preview(draw: Draw, bundle: Path, options: Sequence[str]) -> None:
    """Draw PREVIEW_NAME into the bundle; raises BuildError. options: PREVIEW or the like."""
    people = [shipped.HIM, shipped.HER]
    out = bundle / PREVIEW_NAME
    try:
        draw_from(draw, bundle, people, "--seed", 7, "--out", out, *_EXACT, *options)
    except CandidateError as error:
        raise _cannot_draw(error) from error


def _cannot_draw(error: CandidateError) -> BuildError:
    return BuildError(f"the runtime cannot draw from this bundle: {error}")
