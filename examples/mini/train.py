"""Trains the shipped model on the drawn world, stage by stage; ship.py then writes it out.

    python -m examples.mini.train [--stage NAME ...] [--folder FOLDER] [--minutes M]

Each stage goes on from its checkpoint in the folder, so a killed run loses two minutes at most and
the whole may be spread over several sessions.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor

from examples.mini.architecture import TEXT, TEXT_WIDTH, UNET, VAE, VISION
from examples.mini.dataset import load, render
from examples.mini.tokenizer import make_tokenizer
from examples.mini.training.diffusion import (
    Latents,
    SubjectAugmented,
    TextDriven,
    sdm_loss,
    tdm_loss,
)
from examples.mini.training.encoder import AttributeEncoder, all_photos, encoder_loss
from examples.mini.training.loop import Plan, latest_average, trained
from examples.mini.training.vae import encoded, vae_loss
from export.fusion_mlp import FusionMLP
from export.modules_from_weights import (
    image_encoder_from,
    text_encoder_from,
    unet_from,
    vae_from,
)
from runtime.prompt import Tokenizer

SHARDS = 12
PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="vae", steps=4000, batch=12, learning_rate=1.5e-3, ema_decay=0.998),
        Plan(name="encoder", steps=3000, batch=64, learning_rate=1e-3, ema_decay=0.998),
        Plan(name="tdm", steps=24000, batch=48, learning_rate=1e-3, ema_decay=0.9992),
        Plan(name="sdm", steps=24000, batch=48, learning_rate=6e-4, ema_decay=0.9992),
    )
}
CROP_PX = 64
_SEEDS = {"vae": 1, "encoder": 2, "tdm": 3, "sdm": 4}


def draw_world(folder: Path, seconds: float) -> None:
    """24,000 pictures with the truth and the photos of their people."""
    render(folder / "world", SHARDS)


def train_vae(folder: Path, seconds: float) -> None:
    """The VAE on crops."""
    shard, plan = load(folder / "world"), PLANS["vae"]
    vae = new_vae()
    trained(
        vae, lambda step: vae_loss(vae, shard, plan, step, CROP_PX), plan, folder, seconds=seconds
    )


def encode_latents(folder: Path, seconds: float) -> None:
    """The latents of the whole world, scaled to a standard deviation of 1."""
    vae = latest_average(new_vae(), folder, "vae")
    latents = encoded(vae, load(folder / "world").pixels)
    factor = float(1 / latents.std())
    torch.save({"latents": (latents * factor).half(), "factor": factor}, folder / "latents.pt")
    print(f"scaling factor {factor:.4f}, means {latents.mean(dim=(0, 2, 3)).tolist()}")


def train_encoder(folder: Path, seconds: float) -> None:
    """The image encoder on the attributes of the photos."""
    photos, attributes = all_photos(load(folder / "world"))
    plan, model = PLANS["encoder"], new_attribute_encoder()
    trained(
        model,
        lambda step: encoder_loss(model, photos, attributes, plan, step),
        plan,
        folder,
        seconds=seconds,
    )


def train_tdm(folder: Path, seconds: float) -> None:
    """The text encoder and TDM's U-Net."""
    data, plan, model = opened_latents(folder), PLANS["tdm"], new_tdm(folder)
    trained(model, lambda step: tdm_loss(model, data, plan, step), plan, folder, seconds=seconds)


def train_sdm(folder: Path, seconds: float) -> None:
    """SDM, from TDM and the pretrained image encoder."""
    data, plan, model = opened_latents(folder), PLANS["sdm"], new_sdm(folder)
    tdm = latest_average(new_tdm(folder), folder, "tdm")
    model.text_encoder.load_state_dict(tdm.text_encoder.state_dict())
    model.unet.load_state_dict(tdm.unet.state_dict())
    encoder = latest_average(new_attribute_encoder(), folder, "encoder").image_encoder
    model.image_encoder.load_state_dict(encoder.state_dict())
    trained(model, lambda step: sdm_loss(model, data, plan, step), plan, folder, seconds=seconds)


def new_vae() -> Any:
    """A VAE as it starts."""
    torch.manual_seed(_SEEDS["vae"])
    return _trainable(vae_from(VAE))


def new_attribute_encoder() -> AttributeEncoder:
    """The image encoder with its classifiers as they start."""
    torch.manual_seed(_SEEDS["encoder"])
    return AttributeEncoder(image_encoder_from(VISION))


def new_tdm(folder: Path) -> TextDriven:
    """TDM as it starts."""
    torch.manual_seed(_SEEDS["tdm"])
    return TextDriven(text_encoder_from(text_config(folder)), _trainable(unet_from(UNET)))


def new_sdm(folder: Path) -> SubjectAugmented:
    """SDM as it starts, before it takes over TDM's weights and the image encoder's."""
    torch.manual_seed(_SEEDS["sdm"])
    return SubjectAugmented(
        text_encoder_from(text_config(folder)),
        _trainable(unet_from(UNET)),
        image_encoder_from(VISION),
        FusionMLP(TEXT_WIDTH, VISION["projection_dim"]),
    )


def text_config(folder: Path) -> dict[str, Any]:
    """The text encoder's configuration for the vocabulary of the captions."""
    size = make_tokenizer(folder / "tokenizer")
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    return TEXT | {"vocab_size": size} | ends


def opened_latents(folder: Path) -> Latents:
    """The encoded training set, its captions' tokenizer and the noise levels."""
    make_tokenizer(folder / "tokenizer")
    tokenizer = Tokenizer.open(
        folder / "tokenizer" / "tokenizer.json", TEXT["max_position_embeddings"]
    )
    stored = torch.load(folder / "latents.pt", weights_only=True)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, dim=0).float()
    return Latents(stored["latents"].float(), load(folder / "world"), tokenizer, alphas_cumprod)


def _trainable(module: Any) -> Any:
    """With attention in plain products: torch's fused one is slower backward on CPUs."""
    module.set_attn_processor(AttnProcessor())
    return module


STAGES: dict[str, Callable[[Path, float], None]] = {
    "world": draw_world,
    "vae": train_vae,
    "latents": encode_latents,
    "encoder": train_encoder,
    "tdm": train_tdm,
    "sdm": train_sdm,
}


def main() -> None:
    """The stages that were asked for, in their order."""
    parser = argparse.ArgumentParser(prog="python -m examples.mini.train", description=__doc__)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--folder", type=Path, default=Path("build/mini"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="of each training stage")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, stage in STAGES.items():
        if name in options.stage:
            stage(options.folder, 60 * options.minutes)


if __name__ == "__main__":
    main()
