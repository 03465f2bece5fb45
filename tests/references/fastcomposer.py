"""FastComposer's sampler, float64: written from its paper (Xiao et al. 2023, section 4.3) and the
behavior of its released script. One U-Net; the prompt's people come in after a while."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tests.references.scheduler import Steps

Array = npt.NDArray[np.float64]
# Latents, timestep, prompt embeds -> noise prediction.
UNet = Callable[[Array, int, Array], Array]


def sampled(
    unet: UNet, latents: Array, null: Array, text: Array, augmented: Array, *,
    scale: float, start_merge_step: int, steps: Steps, solver: str,
) -> Array:  # fmt: skip
    """The final latents. Up to start_merge_step, which it includes, the prompt is text alone;
    guidance always points from the null prompt."""
    move = {"ddim": steps.ddim, "pndm": steps.pndm}[solver]
    for step, timestep in enumerate(steps.timesteps):
        prompt = text if step <= start_merge_step else augmented
        without, with_prompt = unet(latents, timestep, null), unet(latents, timestep, prompt)
        latents = move(step, latents, without + scale * (with_prompt - without))
    return latents
