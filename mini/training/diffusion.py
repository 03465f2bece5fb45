"""The losses of TDM and SDM: predict the noise of latents (paper, section 3 and appendix C)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.checkpoint.fusion_mlp import FusionMLP
from mini.dataset import MAX_PEOPLE, Shard
from mini.training.encoder import normalized
from mini.training.loop import Plan, half_precision, own_share, step_generator
from mini.world import caption
from runtime.inputs.prompt import Tokenizer

NULL_SHARE = 0.1
SDM_NULL_SHARE = 0.05
TEXT_ONLY_SHARE = 0.2
REGION_SHARE = 0.5
# Where what a photo tells is settled: before these levels SDM does not run, after them the noisy
# picture itself shows the colors of hats and clothes. Half of SDM's samples are drawn here.
SDM_SETTLING_SHARE = 0.5
SETTLING_LEVELS = (0.4, 0.8)


@dataclass(frozen=True, eq=False)
class Latents:
    """The training set as the U-Nets see it: scaled latents [n, 4, 16, 16] and the truth."""

    latents: Tensor
    shard: Shard
    tokenizer: Tokenizer
    alphas_cumprod: Tensor


class TextDriven(nn.Module):
    """TDM: the text encoder and a U-Net, trained together."""

    def __init__(self, text_encoder: Any, unet: Any) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet


class SubjectAugmented(nn.Module):
    """SDM: a U-Net, the fusion MLP and the image encoder, of which the last blocks are trained."""

    def __init__(self, unet: Any, image_encoder: Any, fusion_mlp: FusionMLP) -> None:
        super().__init__()
        self.unet = unet
        self.image_encoder = image_encoder.requires_grad_(requires_grad=False)
        self.fusion_mlp = fusion_mlp
        vision = image_encoder.vision_model
        for trained in (*vision.encoder.layers[-2:], vision.post_layernorm):
            trained.requires_grad_(requires_grad=True)
        image_encoder.visual_projection.requires_grad_(requires_grad=True)


@dataclass(frozen=True, eq=False)
class Batch:
    """A noised batch: index into the set [n], noisy latents, noise, timesteps and token ids."""

    index: np.ndarray
    noisy: Tensor
    noise: Tensor
    timesteps: Tensor
    ids: Tensor
    positions: list[tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class SubjectStep:
    """One step of a model that is shown people: its loss, its error of the noise, what it saw.

    text_only: the samples whose prompt had no people mixed in [n].
    """

    loss: Tensor
    plain: float
    batch: Batch
    text_only: npt.NDArray[np.bool_]


def tdm_loss(
    model: TextDriven, data: Latents, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of the noise; one caption in ten is the empty one."""
    chance, device = step_generator(plan.name, step), model.unet.device
    batch = _batch(data, plan, chance, device, null_share=NULL_SHARE)
    with half_precision(device):
        embeds = model.text_encoder(input_ids=batch.ids).last_hidden_state
        predicted = model.unet(batch.noisy, batch.timesteps, embeds).sample
    return (predicted.float() - batch.noise).square().mean(), {}


def sdm_loss(
    model: SubjectAugmented, text_encoder: Any, data: Latents, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """The noise's error with people mixed into the prompt; the text encoder is TDM's."""
    found = subject_step(model, text_encoder, data, plan, step, null_share=SDM_NULL_SHARE)
    return found.loss, {"plain": found.plain}


def subject_step(
    model: SubjectAugmented,
    text_encoder: Any,
    data: Latents,
    plan: Plan,
    step: int,
    *,
    null_share: float,
) -> SubjectStep:
    """The noise's error with people mixed into the prompt.

    The text encoder stays as it is. A fifth of the samples are text alone. For half of the others
    the error counts inside the people's region alone, so that a person's embedding says nothing of
    the scene.
    """
    chance, device = step_generator(plan.name, step), model.unet.device
    batch = _batch(
        data, plan, chance, device, null_share=null_share, settling_share=SDM_SETTLING_SHARE
    )
    text_only = chance.random_sample(plan.batch) < TEXT_ONLY_SHARE
    in_region = (chance.random_sample(plan.batch) < REGION_SHARE) & ~text_only
    text_only, in_region = text_only[own_share(plan.batch)], in_region[own_share(plan.batch)]
    with half_precision(device):
        with torch.no_grad():
            text = text_encoder(input_ids=batch.ids).last_hidden_state
        embeds = _augmented(model, data, batch, text.float(), text_only)
        predicted = model.unet(batch.noisy, batch.timesteps, embeds).sample
    error = (predicted.float() - batch.noise).square().mean(dim=1)
    regions = torch.from_numpy(data.shard.regions[batch.index]).float().to(device) / 255
    regions = regions / regions.mean(dim=(1, 2), keepdim=True).clamp(min=0.05)
    weights = torch.where(torch.from_numpy(in_region).to(device)[:, None, None], regions, 1.0)
    weights = (
        weights
        * level_weights(data.alphas_cumprod)[batch.timesteps.cpu()].to(device)[:, None, None]
    )
    return SubjectStep((error * weights).mean(), float(error.detach().mean()), batch, text_only)


def level_weights(alphas_cumprod: Tensor) -> Tensor:
    """Weight of each timestep's loss [timesteps], 1 on average, larger where noise is stronger.

    Three quarters of the way from an error of the noise to one of the picture, within limits: an
    error of the noise hardly counts where colors are settled.
    """
    weights = ((1 - alphas_cumprod) / alphas_cumprod).pow(0.75).clamp(0.4, 6.0)
    return weights / weights.mean()


def _batch(
    data: Latents,
    plan: Plan,
    chance: np.random.RandomState,
    device: torch.device,
    *,
    null_share: float,
    settling_share: float = 0.0,
) -> Batch:
    """settling_share: of the samples, how many are of SETTLING_LEVELS alone."""
    index = chance.randint(0, len(data.latents), plan.batch)
    # Spread evenly over the noise levels, which makes the loss less noisy than independent ones.
    places = (np.arange(plan.batch) + chance.random_sample(plan.batch)) / plan.batch
    settling = np.arange(plan.batch) % 10 < 10 * settling_share
    low, high = SETTLING_LEVELS
    places = np.where(settling, low + (high - low) * places, places)
    timesteps = torch.from_numpy((places * len(data.alphas_cumprod)).astype(np.int64))
    noise = torch.from_numpy(chance.standard_normal((plan.batch, *data.latents.shape[1:]))).float()
    null = chance.random_sample(plan.batch) < null_share
    seeds = chance.randint(0, 2**31, plan.batch)
    rows = own_share(plan.batch)
    index, timesteps, noise = index[rows], timesteps[rows], noise[rows]
    share = data.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noised = share.sqrt() * data.latents[torch.from_numpy(index)] + (1 - share).sqrt() * noise
    ids: list[Any] = []
    positions: list[tuple[int, ...]] = []
    for picture, is_null, seed in zip(index, null[rows], seeds[rows], strict=True):
        if is_null:
            ids.append(data.tokenizer.text_ids(""))
            positions.append(())
            continue
        kinds = data.shard.kinds(picture)
        text = caption(data.shard.setting(picture), kinds, random.Random(int(seed)))
        tokens = data.tokenizer.prompt_tokens(text, len(kinds))
        ids.append(tokens.subject_ids)
        positions.append(tokens.subject_positions)
    stacked = torch.from_numpy(np.stack(ids)).long()
    noised, noise, timesteps = noised.to(device), noise.to(device), timesteps.to(device)
    return Batch(index, noised, noise, timesteps, stacked.to(device), positions)


def _augmented(
    model: SubjectAugmented, data: Latents, batch: Batch, text: Tensor, text_only: np.ndarray
) -> Tensor:
    """The prompt embeds with each person's photo mixed into their word [n, tokens, width]."""
    rows, places, tokens = [], [], []
    for row, positions in enumerate(batch.positions):
        if not text_only[row]:
            for place, position in enumerate(positions[:MAX_PEOPLE]):
                rows.append(row)
                places.append(place)
                tokens.append(position)
    device = text.device
    photos = normalized(data.shard.photos[batch.index[rows], places]).to(device)
    subjects = model.image_encoder(pixel_values=photos).image_embeds
    placed = torch.zeros(*text.shape[:2], subjects.shape[-1], device=device)
    mask = torch.zeros(text.shape[:2], dtype=torch.bool, device=device)
    at = (torch.tensor(rows, device=device), torch.tensor(tokens, device=device))
    placed = placed.index_put(at, subjects.float())
    mask[rows, tokens] = True
    # As released: the mixed embedding replaces the text's at the people's tokens.
    mixed: Tensor = model.fusion_mlp(text, placed, mask)
    return torch.where(mask.unsqueeze(-1), mixed, text)
