"""What the libraries themselves answer, by their own public calls: the truth of the parity gate.

Nothing of export/graph is in between, so what a wrapper there leaves out shows as a difference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engines.contract import Component


def library_answer(component: Component, library: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The contract's output of a component, computed by its unmodified library module.

    inputs: float32, by tensor name. The latents are repeated for every pass, as pipelines do.
    """
    model: Any = library
    with torch.inference_mode():
        match component:
            case Component.TEXT_ENCODER:
                output: Tensor = model(input_ids=inputs["input_ids"]).last_hidden_state
            case Component.IMAGE_ENCODER:
                output = model(pixel_values=inputs["reference_pixels"]).image_embeds
            case Component.FUSION_MLP:
                output = model(**inputs)
            case Component.TDM_UNET | Component.SDM_UNET:
                latents, embeds = inputs["latents"], inputs["prompt_embeds"]
                passes = len(embeds) // len(latents)
                rows, timesteps = latents.repeat(passes, 1, 1, 1), inputs["timestep"].repeat(passes)
                output = model(rows, timesteps, encoder_hidden_states=embeds).sample
            case Component.VAE_DECODER:
                scaled = inputs["latents"] / model.config.scaling_factor
                output = model.decode(scaled).sample.clamp(-1, 1)
    return output
