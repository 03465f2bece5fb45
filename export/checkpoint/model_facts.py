"""What the manifest says of a model beside its weights: sizes, noise schedule, tokenizer."""

from __future__ import annotations

from pathlib import Path

from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.contract import LATENT_PX, NOISE_PREDICTORS, Component
from export.checkpoint.checkpoint import CheckpointError
from export.checkpoint.configurations import (
    noise_schedule,
    unet_sizes,
    vae_sizes,
)
from export.checkpoint.modules_from_weights import text_config_from, vision_config_from
from export.checkpoint.tokenizer import tokenizer_of
from export.source import ModelSource

# OpenAI's CLIP normalization, which the released image encoder applies whatever its configuration.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def dimensions_of(source: ModelSource) -> Dimensions:
    """The contract's fixed numbers, from the components' configurations."""
    text = text_config_from(source.config(Component.TEXT_ENCODER))
    vision = vision_config_from(source.config(Component.IMAGE_ENCODER))
    unet = unet_sizes(source.config(Component.SDM_UNET))
    vae = vae_sizes(source.config(Component.VAE_DECODER))
    for component in NOISE_PREDICTORS:
        expected = unet_sizes(source.config(component))["cross_attention_dim"]
        if text.hidden_size != expected:
            raise CheckpointError(
                f"the text encoder is {text.hidden_size} wide, {component} takes {expected}; the "
                "parts do not belong together, check --base, --tdm and --sdm"
            )
    for part in (unet_sizes(source.config(Component.TDM_UNET)), vae):
        channels = part.get("latent_channels", part["in_channels"])
        if channels != unet["in_channels"]:
            raise CheckpointError(
                f"the parts have latents of {channels} and of {unet['in_channels']} channels; "
                "they do not belong together, check --base, --tdm and --sdm"
            )
    vae_px = 2 ** (len(vae["block_out_channels"]) - 1)
    if vae_px != LATENT_PX:
        raise CheckpointError(
            f"the base's VAE has {vae_px} px a latent, expected {LATENT_PX} as in Stable Diffusion "
            "1.5; name another with --base"
        )
    if not isinstance(vision.image_size, int):
        raise CheckpointError(f"the image encoder says image_size {vision.image_size}; expected px")
    return Dimensions(
        tokens=text.max_position_embeddings,
        text_width=text.hidden_size,
        subject_width=vision.projection_dim,
        latent_channels=unet["in_channels"],
        image_px=vision.image_size,
        native_px=unet["sample_size"] * LATENT_PX,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )


def noise_schedule_of(source: ModelSource) -> NoiseSchedule:
    """The noise levels the model was trained on; CheckpointError where they are not supported."""
    return noise_schedule(source.scheduler_config(), Path("scheduler_config.json"))


def tokenizer_json(source: ModelSource) -> str:
    """The tokenizer as one JSON document of the tokenizers library."""
    sizes = text_config_from(source.config(Component.TEXT_ENCODER))
    tokenizer = tokenizer_of(
        source.tokenizer_folder, sizes.vocab_size, sizes.max_position_embeddings
    )
    text: str = tokenizer.backend_tokenizer.to_str()
    return text
