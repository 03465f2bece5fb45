"""Stable Diffusion 1.5's architecture with seeded random weights: its size, without a download."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from engines.contract import NOISE_PREDICTORS, Component
from export import shipped
from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)

Module = TypeVar("Module", bound=nn.Module)

TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
VISION_CONFIG: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
UNET_CONFIG: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    # A count of heads, whatever its name says.
    "attention_head_dim": 8,
}
VAE_CONFIG: dict[str, Any] = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
    "trained_betas": None,
}


def random_checkpoint(seed: int = 0) -> RandomCheckpoint:
    """A model of Stable Diffusion 1.5's architecture with random weights, the same for a seed."""
    return RandomCheckpoint(seed)


@dataclass(frozen=True)
class RandomCheckpoint:
    """A ModelSource whose components are drawn when they are asked for; it keeps none of them."""

    seed: int = 0

    def text_encoder(self) -> CLIPTextModel:
        return self._drawn(Component.TEXT_ENCODER, lambda: text_encoder_from(TEXT_CONFIG))

    def image_encoder(self) -> CLIPVisionModelWithProjection:
        return self._drawn(Component.IMAGE_ENCODER, lambda: image_encoder_from(VISION_CONFIG))

    def fusion_mlp(self) -> FusionMLP:
        text_width, subject_width = TEXT_CONFIG["hidden_size"], VISION_CONFIG["projection_dim"]
        return self._drawn(Component.FUSION_MLP, lambda: FusionMLP(text_width, subject_width))

    def unet(self, component: Component) -> UNet2DConditionModel:
        if component not in NOISE_PREDICTORS:
            raise ValueError(f"{component} is no U-Net; expected one of {NOISE_PREDICTORS}")
        return self._drawn(component, lambda: unet_from(UNET_CONFIG))

    def vae_decoder(self) -> AutoencoderKL:
        return self._drawn(Component.VAE_DECODER, lambda: vae_from(VAE_CONFIG))

    def config(self, component: Component) -> dict[str, Any]:
        """The architecture of a component."""
        match component:
            case Component.TEXT_ENCODER | Component.FUSION_MLP:
                return TEXT_CONFIG
            case Component.IMAGE_ENCODER:
                return VISION_CONFIG
            case Component.TDM_UNET | Component.SDM_UNET:
                return UNET_CONFIG
            case Component.VAE_DECODER:
                return VAE_CONFIG

    def scheduler_config(self) -> dict[str, Any]:
        return dict(SCHEDULER_CONFIG)

    @property
    def tokenizer_folder(self) -> Path:
        """The shipped model's: all its ids are below this architecture's vocabulary size."""
        return shipped.MODEL / "base" / "tokenizer"

    def digest(self, component: Component) -> str:
        configs = (TEXT_CONFIG, VISION_CONFIG, UNET_CONFIG, VAE_CONFIG)
        described = f"{component} {self.seed} {torch.__version__} {configs}"
        return hashlib.sha256(described.encode()).hexdigest()

    def source_digests(self) -> dict[str, str]:
        return {f"random/{component}": self.digest(component) for component in Component}

    def licenses(self) -> list[str]:
        return [f"random weights (seed {self.seed}): MIT, part of this repository"]

    def _drawn(self, component: Component, build: Callable[[], Module]) -> Module:
        """The module with torch's own initialization, drawn from (seed, component)."""
        described = f"{self.seed} {component}".encode()
        seed = int.from_bytes(hashlib.sha256(described).digest()[:7])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build()
        return module.eval().requires_grad_(requires_grad=False)
