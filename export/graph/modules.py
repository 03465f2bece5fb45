"""Each component as a torch module with exactly the contract's inputs and outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engines.contract import Component
from export.graph.unet import BatchedPassesUNet
from export.source import ModelSource


class TextEncoder(nn.Module):
    """input_ids [n, tokens] int32 -> text_embeds [n, tokens, text_width], after the final norm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        embeds: Tensor = self.model(input_ids=input_ids).last_hidden_state
        return embeds


class ImageEncoder(nn.Module):
    """reference_pixels [n, 3, px, px] -> subject_embeds [n, subject_width], not normalized."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, reference_pixels: Tensor) -> Tensor:
        embeds: Tensor = self.model(pixel_values=reference_pixels).image_embeds
        return embeds


class VaeDecoder(nn.Module):
    """latents [images, 4, h, w] -> pixels [images, 3, 8h, 8w], clamped to [-1, 1]."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        model: Any = vae
        self.decoder: nn.Module = model.decoder
        self.post_quant_conv: nn.Module = model.post_quant_conv
        self.scaling_factor: float = model.config.scaling_factor

    def forward(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(self.post_quant_conv(latents / self.scaling_factor))
        return pixels.clamp(-1, 1)


def module_of(component: Component, source: ModelSource) -> nn.Module:
    """A component's module with its weights, float32, in evaluation mode."""
    return wrapped(component, library_module(component, source))


def library_module(component: Component, source: ModelSource) -> nn.Module:
    """A component as its library has it, with its weights, float32, in evaluation mode.

    The libraries are transformers and diffusers; the fusion MLP's is the released code.
    """
    match component:
        case Component.TEXT_ENCODER:
            module: nn.Module = source.text_encoder()
        case Component.IMAGE_ENCODER:
            module = source.image_encoder()
        case Component.FUSION_MLP:
            module = source.fusion_mlp()
        case Component.TDM_UNET | Component.SDM_UNET:
            module = source.unet(component)
        case Component.VAE_DECODER:
            module = source.vae_decoder()
    return module.eval().requires_grad_(requires_grad=False)


def wrapped(component: Component, library: nn.Module) -> nn.Module:
    """The module with the contract's inputs and outputs around a library's, which it may change."""
    match component:
        case Component.TEXT_ENCODER:
            return TextEncoder(library).eval()
        case Component.IMAGE_ENCODER:
            return ImageEncoder(library).eval()
        case Component.FUSION_MLP:
            return library
        case Component.TDM_UNET | Component.SDM_UNET:
            return BatchedPassesUNet(library).eval()
        case Component.VAE_DECODER:
            return VaeDecoder(library).eval()


def run(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The module's output on inputs given by tensor name."""
    with torch.inference_mode():
        output: Tensor = module(**inputs)
    return output
