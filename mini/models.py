"""The shipped model's parts as their training starts, the same on each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor

from export.checkpoint.fusion_mlp import FusionMLP
from export.checkpoint.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from mini.architecture import TEXT, TEXT_WIDTH, UNET, VAE, VISION
from mini.tokenizer import make_tokenizer
from mini.training.decoder import Sharpened
from mini.training.diffusion import SubjectAugmented, TextDriven
from mini.training.encoder import AttributeEncoder
from mini.training.loop import latest_average, rank
from mini.training.probes import Probes


def new_vae() -> Any:
    """The VAE."""
    torch.manual_seed(1)
    return _trainable(vae_from(VAE))


def new_decoder(vae: Any) -> Sharpened:
    """The trained VAE's decoder, as its second training starts."""
    torch.manual_seed(6)
    return Sharpened(vae).requires_grad_(requires_grad=True)


def trained_vae(folder: Path) -> Any:
    """The VAE of the first training with the decoder of the second."""
    vae = latest_average(new_vae(), folder, "vae")
    latest_average(new_decoder(vae), folder, "decoder")  # whose decoder is the VAE's own
    return vae


def new_attribute_encoder() -> AttributeEncoder:
    """The image encoder with the classifiers that its pretraining needs."""
    torch.manual_seed(2)
    return AttributeEncoder(image_encoder_from(VISION))


def new_tdm(folder: Path) -> TextDriven:
    """The text encoder, for the vocabulary of the captions, and TDM's U-Net."""
    torch.manual_seed(3)
    return TextDriven(
        _trainable(text_encoder_from(text_config(folder))), _trainable(unet_from(UNET))
    )


def new_sdm() -> SubjectAugmented:
    """SDM, before it takes over TDM's weights and the image encoder's."""
    torch.manual_seed(4)
    return SubjectAugmented(
        _trainable(unet_from(UNET)),
        _trainable(image_encoder_from(VISION)),
        FusionMLP(TEXT_WIDTH, VISION["projection_dim"]),
    )


def new_probes() -> Probes:
    """The networks that judge pictures."""
    torch.manual_seed(5)
    return Probes()


def text_config(folder: Path) -> dict[str, Any]:
    """The text encoder's configuration for the vocabulary of the captions."""
    size = make_tokenizer(tokenizer_folder(folder))
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    return TEXT | {"vocab_size": size} | ends


def tokenizer_folder(folder: Path) -> Path:
    """Where a training process keeps its tokenizer; each has one of its own, all are the same."""
    return folder / (f"tokenizer-{rank()}" if rank() else "tokenizer")


def _trainable(module: Any) -> Any:
    """With attention in plain products: torch's fused one is slower backward on CPUs."""
    if hasattr(module, "set_attn_processor"):
        module.set_attn_processor(AttnProcessor())
    else:
        module.set_attn_implementation("eager")
    return module
