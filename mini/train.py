"""Trains the shipped model on the drawn world, stage by stage; ship.py then writes it out.

    python -m mini.train [--stage NAME ...] [--folder FOLDER] [--minutes M]

Each stage goes on from its checkpoint in the folder, so a killed run loses two minutes at most and
the whole may be spread over several runs. Run by `torchrun --nproc-per-node N -m`, the stages
tdm and sdm share each batch between N processes of one CPU.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.cli.parser import command_parser
from export.checkpoint.random_weights import SCHEDULER_CONFIG
from mini.architecture import TEXT
from mini.dataset import load, render
from mini.models import (
    new_attribute_encoder,
    new_decoder,
    new_probes,
    new_sdm,
    new_tdm,
    new_vae,
    tokenizer_folder,
    trained_vae,
)
from mini.tokenizer import make_tokenizer
from mini.training.decoder import decoder_loss
from mini.training.diffusion import Latents, SubjectAugmented, sdm_loss, tdm_loss
from mini.training.encoder import all_photos, encoder_loss
from mini.training.fastcomposer import fastcomposer_loss
from mini.training.loop import Loss, Plan, latest_average, trained
from mini.training.probes import probes_loss, through_vae
from mini.training.vae import encoded, vae_loss
from runtime.inputs.prompt import Tokenizer

SHARDS = 12
# The rival that benchmarks measure; no part of the shipped model.
FASTCOMPOSER = "fastcomposer"
SDM_PLAN = Plan(name="sdm", steps=20000, batch=32, learning_rate=2e-3, ema_decay=0.999)
PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="vae", steps=4000, batch=12, learning_rate=1.5e-3, ema_decay=0.998),
        Plan(name="decoder", steps=1500, batch=12, learning_rate=5e-4, ema_decay=0.998),
        Plan(name="encoder", steps=3000, batch=64, learning_rate=1e-3, ema_decay=0.998),
        Plan(name="probes", steps=1000, batch=48, learning_rate=1.5e-3, ema_decay=0.99),
        Plan(name="tdm", steps=6500, batch=32, learning_rate=1e-3, ema_decay=0.999),
        SDM_PLAN,
        replace(SDM_PLAN, name=FASTCOMPOSER),
    )
}
CROP_PX = 64

SubjectLoss = Callable[
    [SubjectAugmented, Any, Latents, Plan, int], tuple[torch.Tensor, dict[str, float]]
]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run keeps its state, where it computes, and how long a stage may take."""

    folder: Path
    device: torch.device
    seconds: float

    def train(self, name: str, module: torch.nn.Module, loss: Loss) -> None:
        """One stage of PLANS, on from its checkpoint."""
        trained(module, loss, PLANS[name], self.folder, seconds=self.seconds)


def draw_world(run: Run) -> None:
    """24,000 pictures with the truth and the photos of their people."""
    render(run.folder / "world", SHARDS)


def train_vae(run: Run) -> None:
    """The VAE on crops."""
    shard, plan, vae = load(run.folder / "world"), PLANS["vae"], new_vae().to(run.device)
    run.train("vae", vae, lambda step: vae_loss(vae, shard, plan, step, CROP_PX))


def encode_latents(run: Run) -> None:
    """The latents of the whole world, scaled to a standard deviation of 1."""
    vae = latest_average(new_vae(), run.folder, "vae").to(run.device)
    latents = encoded(vae, load(run.folder / "world").pixels)
    factor = float(1 / latents.std())
    torch.save({"latents": (latents * factor).half(), "factor": factor}, run.folder / "latents.pt")


def sharpen_decoder(run: Run) -> None:
    """The VAE's decoder once more, against a network that knows decoded pictures."""
    vae, plan = latest_average(new_vae(), run.folder, "vae"), PLANS["decoder"]
    stored, shard = _stored_latents(run), load(run.folder / "world")
    latents, model = stored["latents"].float() / stored["factor"], new_decoder(vae).to(run.device)
    run.train(
        "decoder", model, lambda step: decoder_loss(model, latents, shard, plan, step, CROP_PX)
    )


def train_encoder(run: Run) -> None:
    """The image encoder on the attributes of the photos."""
    photos, attributes = all_photos(load(run.folder / "world"))
    plan, model = PLANS["encoder"], new_attribute_encoder().to(run.device)
    run.train("encoder", model, lambda step: encoder_loss(model, photos, attributes, plan, step))


def train_probes(run: Run) -> None:
    """The judges of benchmarks/measures/quality.py, on pictures and what the VAE makes of them."""
    shard, plan, model = load(run.folder / "world"), PLANS["probes"], new_probes().to(run.device)
    vae = trained_vae(run.folder)
    drawn = through_vae(vae, np.asarray(shard.pixels[:1200]))
    run.train("probes", model, lambda step: probes_loss(model, shard, drawn, plan, step))


def train_tdm(run: Run) -> None:
    """The text encoder and TDM's U-Net."""
    data, plan, model = opened_latents(run), PLANS["tdm"], new_tdm(run.folder).to(run.device)
    run.train("tdm", model, lambda step: tdm_loss(model, data, plan, step))


def train_sdm(run: Run) -> None:
    """SDM, from TDM and the pretrained image encoder, with TDM's text encoder as it is."""
    _train_with_people(run, "sdm", sdm_loss)


def train_fastcomposer(run: Run) -> None:
    """FastComposer, from where SDM starts, in as many steps."""
    _train_with_people(run, FASTCOMPOSER, fastcomposer_loss)


def _train_with_people(run: Run, name: str, loss: SubjectLoss) -> None:
    data, plan, model = opened_latents(run), PLANS[name], new_sdm()
    tdm = latest_average(new_tdm(run.folder), run.folder, "tdm").to(run.device)
    encoder = latest_average(new_attribute_encoder(), run.folder, "encoder").image_encoder
    model.unet.load_state_dict(tdm.unet.state_dict())
    model.image_encoder.load_state_dict(encoder.state_dict())
    model.to(run.device)
    text_encoder = tdm.text_encoder
    run.train(name, model, lambda step: loss(model, text_encoder, data, plan, step))


def opened_latents(run: Run) -> Latents:
    """The encoded training set, its captions' tokenizer and the noise levels."""
    make_tokenizer(tokenizer_folder(run.folder))
    path = tokenizer_folder(run.folder) / "tokenizer.json"
    tokenizer = Tokenizer.open(path, TEXT["max_position_embeddings"])
    stored = _stored_latents(run)
    start, end = (SCHEDULER_CONFIG[name] ** 0.5 for name in ("beta_start", "beta_end"))
    steps = SCHEDULER_CONFIG["num_train_timesteps"]
    betas = torch.linspace(start, end, steps, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, dim=0).float()
    shard = load(run.folder / "world")
    return Latents(stored["latents"].float(), shard, tokenizer, alphas_cumprod)


def _stored_latents(run: Run) -> dict[str, Any]:
    """What encode_latents wrote."""
    stored: dict[str, Any] = torch.load(run.folder / "latents.pt", weights_only=True)
    return stored


STAGES: dict[str, Callable[[Run], None]] = {
    "world": draw_world,
    "vae": train_vae,
    "latents": encode_latents,
    "decoder": sharpen_decoder,
    "encoder": train_encoder,
    "probes": train_probes,
    "tdm": train_tdm,
    "sdm": train_sdm,
    FASTCOMPOSER: train_fastcomposer,
}
# What the shipped model needs.
SHIPPED_STAGES = [name for name in STAGES if name != FASTCOMPOSER]


def parser() -> argparse.ArgumentParser:
    flags = command_parser("mini.train", __doc__, ["--stage", "tdm", "--minutes", 30])
    flags.add_argument(
        "--stage",
        nargs="+",
        choices=STAGES,
        default=SHIPPED_STAGES,
        metavar="NAME",
        help=f"run these alone, of {', '.join(STAGES)} (default: all but {FASTCOMPOSER})",
    )
    flags.add_argument(
        "--folder",
        type=Path,
        default=Path("build/mini"),
        help="where the stages keep what they made",
    )
    flags.add_argument(
        "--minutes", type=float, default=math.inf, metavar="N", help="of each training stage"
    )
    flags.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="what trains"
    )
    flags.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        metavar="N",
        help="processor cores to use",
    )
    return flags


def main() -> None:
    """The stages that were asked for, in their order."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    if "RANK" in os.environ:  # run by torchrun
        torch.distributed.init_process_group("gloo")
    run = Run(
        folder=options.folder,
        device=torch.device(options.device),
        seconds=60 * options.minutes,
    )
    for name, stage in STAGES.items():
        if name in options.stage:
            stage(run)


if __name__ == "__main__":
    main()
