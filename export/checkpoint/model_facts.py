"""What the manifest says of a model beside its weights: sizes, noise schedule, tokenizer."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import CLIPTokenizer

from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.contract import LATENT_PX, Component
from export.checkpoint.checkpoint import CheckpointError, ModelSource

# OpenAI's CLIP normalization, which the released image encoder applies whatever its configuration.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def dimensions_of(source: ModelSource) -> Dimensions:
    """The contract's fixed numbers, from the components' configurations."""
    text = source.config(Component.TEXT_ENCODER)
    image = source.config(Component.IMAGE_ENCODER)
    unet = source.config(Component.SDM_UNET)
    text = text.get("text_config", text)
    vision = image.get("vision_config", image)
    width, expected = text["hidden_size"], unet["cross_attention_dim"]
    if width != expected:
        raise CheckpointError(
            f"the text encoder is {width} wide, the U-Nets take {expected}; the parts do not "
            "belong together, check --base and --sdm"
        )
    vae_px = 2 ** (len(source.config(Component.VAE_DECODER)["block_out_channels"]) - 1)
    if vae_px != LATENT_PX:
        raise CheckpointError(
            f"the base's VAE has {vae_px} px a latent, expected {LATENT_PX} as in Stable Diffusion "
            "1.5; name another with --base"
        )
    return Dimensions(
        tokens=text["max_position_embeddings"],
        text_width=width,
        subject_width=image.get("projection_dim", vision.get("projection_dim")),
        latent_channels=unet["in_channels"],
        image_px=vision.get("image_size", 224),
        native_px=unet["sample_size"] * LATENT_PX,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )


def noise_schedule_of(source: ModelSource) -> NoiseSchedule:
    """The noise levels the model was trained on; CheckpointError where they are not supported."""
    config: dict[str, Any] = source.scheduler_config()
    names = [field.name for field in dataclasses.fields(NoiseSchedule)]
    schedule = NoiseSchedule(**{name: config[name] for name in names if name in config})
    if config.get("trained_betas") is not None:
        raise CheckpointError("scheduler_config.json lists trained_betas, which are not supported")
    if schedule.beta_schedule not in ("linear", "scaled_linear"):
        raise CheckpointError(
            f"scheduler_config.json says beta_schedule {schedule.beta_schedule!r}; expected linear "
            "or scaled_linear"
        )
    return schedule


def tokenizer_json(source: ModelSource) -> str:
    """The tokenizer as one JSON document of the tokenizers library."""
    tokenizer: Any = CLIPTokenizer.from_pretrained(source.tokenizer_folder)
    text: str = tokenizer.backend_tokenizer.to_str()
    return text
