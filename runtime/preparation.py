"""What of a request and a model's numbers a trajectory starts from: size, noise, coefficients."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.contract import LATENT_PX
from engines.errors import RequestError
from runtime.method.guidance import Float32Array, SubjectGuidance, subject_guidance
from runtime.method.schedule import Stage, StageBoundaries, coefficient_table
from runtime.method.solvers import SOLVERS, Scheduler
from runtime.method.solvers.solver import Grid
from runtime.request import Request
from runtime.trajectory import RequestKind

# Scripts take a guidance scale of 5; noise of any seed stays within 7.
# benchmarks/results/quality.jsonl, 200 pictures each.
PNDM_STEPS, _PNDM_IDENTITY = 50, "0.491 with 20 steps, 0.841 with 50"
_USUAL_GUIDANCE_SCALE, _USUAL_LATENT = 20.0, 10.0


def unusual(request: Request) -> str | None:
    """What of a request may drive a healthy model beyond its numbers; None for nothing."""
    if request.guidance_scale > _USUAL_GUIDANCE_SCALE:
        return f"guidance_scale of {request.guidance_scale:g} (scripts take 5)"
    if request.latents is not None:
        most = float(np.abs(request.latents).max())
        if most > _USUAL_LATENT:
            return f"latents, which reach {most:.3g} (noise stays within 7)"
    return None


def drawing_badly(request: Request, *, one_unet: bool) -> tuple[str, ...]:
    """What of a valid request is known to draw badly, one sentence each.

    one_unet: whether TDM's U-Net and SDM's are the same.
    """
    found = []
    if not request.guidance_rule.fuses and not one_unet:
        found.append(
            f"{request.guidance_rule} is of one U-Net, and this bundle has two: its steps of text "
            "alone are TDM's; to draw as FastComposer does, build a bundle with its checkpoint as "
            "both --tdm and --sdm"
        )
    if request.scheduler is Scheduler.PNDM and request.num_inference_steps < PNDM_STEPS:
        found.append(
            f"pndm diverges under guidance with large steps: with {request.num_inference_steps} of "
            f"them, below {PNDM_STEPS}, people are lost (share of a person's attributes found on "
            f"the shipped model: {_PNDM_IDENTITY}; ddim with 20: 0.861); take scheduler plms2, "
            f"its stable second order, or {PNDM_STEPS} steps"
        )
    return tuple(found)


def kind_of(request: Request, native_px: int) -> RequestKind:
    """What a backend prepares for ahead of this request."""
    height, width = latents_area(request, native_px)
    return RequestKind(
        images=request.num_images,
        height=height,
        width=width,
        guidance_rule=request.guidance_rule,
        fusion=request.fusion,
        saliency=request.saliency,
        guidance=_guidance_kinds(request),
    )


def _guidance_kinds(request: Request) -> frozenset[SubjectGuidance]:
    """What the subject stage may need, however many steps it has."""
    every, until = request.guidance_every, request.guidance_until
    # As many steps as between two that compute it, and one at the very end.
    guided = subject_guidance([0.0] * every, every, 1.0)
    return frozenset([*guided, *([SubjectGuidance.OFF] if until < 1 else [])])


def latents_area(request: Request, native_px: int) -> tuple[int, int]:
    """Height and width of the latents."""
    if request.latents is not None:
        height, width = request.latents.shape[2:]
        return int(height), int(width)
    height, width = ((size or native_px) // LATENT_PX for size in (request.height, request.width))
    return height, width


def initial_latents(
    request: Request, dimensions: Dimensions
) -> tuple[Float32Array, tuple[int, ...]]:
    """Noise of each image from its own seed, in NumPy's frozen RandomState stream; the seeds.

    Raises RequestError for latents of another model's channels.
    """
    seed = int.from_bytes(os.urandom(4)) if request.seed is None else request.seed
    seeds = tuple((seed + image) % 2**32 for image in range(request.num_images))
    channels = dimensions.latent_channels
    if request.latents is not None:
        latents = np.array(request.latents, np.float32)
        if latents.shape[1] != channels:
            raise RequestError(
                f"latents have {latents.shape[1]} channels, this model has {channels}"
            )
        return latents, seeds
    shape = (channels, *latents_area(request, dimensions.native_px))
    noise = [np.random.RandomState(each).standard_normal(shape) for each in seeds]
    return np.stack(noise).astype(np.float32), seeds


@dataclass(frozen=True, kw_only=True, eq=False)
class StepPlan:
    """The steps of a request: a row of coefficients (schedule.Column) and a guidance for each."""

    table: Float32Array
    boundaries: StageBoundaries
    guidance: tuple[SubjectGuidance, ...]


def planned_grid(request: Request, schedule: NoiseSchedule) -> Grid:
    """The noise levels of a request's steps.

    Raises RequestError for a number of steps that the model's schedule cannot serve.
    """
    steps = request.num_inference_steps
    if steps > schedule.num_train_timesteps:
        raise RequestError(
            f"num_inference_steps={steps} is more than the {schedule.num_train_timesteps} "
            "timesteps the model knows; take fewer steps"
        )
    grid = SOLVERS[request.scheduler].grid(schedule, steps)
    if (first := grid.timesteps[0]) >= schedule.num_train_timesteps:
        raise RequestError(
            f"num_inference_steps={steps} needs timestep {first}, the "
            f"model knows {schedule.num_train_timesteps}; take fewer steps"
        )
    return grid


def planned_steps(request: Request, schedule: NoiseSchedule) -> StepPlan:
    """What each step does. Raises what `planned_grid` does."""
    grid = planned_grid(request, schedule)
    boundaries = request.boundaries(grid.shares)
    others = sum(boundaries.stage(step) is not Stage.SUBJECT for step in range(len(grid)))
    subject = subject_guidance(grid.shares[others:], request.guidance_every, request.guidance_until)
    table = coefficient_table(
        request.scheduler,
        schedule,
        request.num_inference_steps,
        request.guidance_scale,
        stage_starts=boundaries.starts(len(grid)),
    )
    return StepPlan(
        table=table,
        boundaries=boundaries,
        guidance=(*[SubjectGuidance.FULL] * others, *subject),
    )
