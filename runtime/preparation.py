"""What of a request and a model's numbers a trajectory starts from: size, noise, coefficients."""

from __future__ import annotations

import os

import numpy as np

from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.contract import LATENT_PX
from engines.errors import RequestError
from runtime.method.guidance import Float32Array
from runtime.method.schedule import coefficient_table, timesteps_of
from runtime.request import Request
from runtime.trajectory import RequestKind

# Scripts take a guidance scale of 5; noise of any seed stays within 7.
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
    )


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


def steps_table(request: Request, schedule: NoiseSchedule) -> Float32Array:
    """One row of coefficients per step (schedule.Column).

    Raises RequestError for a number of steps that the model's schedule cannot serve.
    """
    steps = request.num_inference_steps
    if steps > schedule.num_train_timesteps:
        raise RequestError(
            f"num_inference_steps={steps} is more than the {schedule.num_train_timesteps} "
            "timesteps the model knows; take fewer steps"
        )
    first = timesteps_of(request.scheduler, schedule, steps)[0]
    if first >= schedule.num_train_timesteps:
        raise RequestError(
            f"num_inference_steps={steps} needs timestep {first}, the "
            f"model knows {schedule.num_train_timesteps}; take fewer steps"
        )
    return coefficient_table(request.scheduler, schedule, steps, request.guidance_scale)
