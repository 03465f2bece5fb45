"""The VAE's training: crops of pictures, an L1 loss on several scales and on edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engines.contract import LATENT_PX
from mini.dataset import Shard
from mini.probes import as_input
from mini.training.loop import Plan, half_precision, step_generator

_KL_WEIGHT = 2e-5


def vae_loss(
    vae: Any, shard: Shard, plan: Plan, step: int, crop_px: int
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch of crops."""
    chance = step_generator(plan.name, step)
    device = vae.device
    pixels = _crops(shard, plan.batch, crop_px, chance).to(device)
    cells = crop_px // LATENT_PX
    noise = torch.from_numpy(chance.standard_normal((plan.batch, 4, cells, cells)))
    with half_precision(device):
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise.float().to(device)
        drawn = vae.decode(latents).sample
    drawn = drawn.float()
    apart = distance(drawn, pixels)
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    shown = {"l1": float((drawn - pixels).detach().abs().mean()), "kl": float(divergence.detach())}
    return apart + _KL_WEIGHT * divergence, shown


def _crops(shard: Shard, batch: int, side: int, chance: np.random.RandomState) -> Tensor:
    """[batch, 3, side, side] in [-1, 1]; every second one is around people's heads."""
    crops = np.empty((batch, side, side, 3), np.uint8)
    size = shard.pixels.shape[1]
    for index, picture in enumerate(chance.randint(0, len(shard.pixels), batch)):
        if index % 2 and side < size:
            left = chance.randint(0, size - side + 1)
            top = chance.randint(0, max(1, (size - side) // 2))
        else:
            left, top = chance.randint(0, size - side + 1, 2)
        crops[index] = shard.pixels[picture, top : top + side, left : left + side]
    return as_input(crops)


def distance(drawn: Tensor, pixels: Tensor) -> Tensor:
    """L1 and a little L2 on three scales, and L1 between their edges."""
    total = torch.zeros((), device=pixels.device)
    for scale in range(3):
        difference = drawn - pixels
        total = total + difference.abs().mean() + difference.square().mean()
        if scale < 2:
            total = total + (difference[..., 1:] - difference[..., :-1]).abs().mean()
            total = total + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        drawn, pixels = functional.avg_pool2d(drawn, 2), functional.avg_pool2d(pixels, 2)
    return total


@torch.no_grad()
def encoded(vae: Any, pixels: np.ndarray) -> Tensor:
    """Latent means [n, 4, h, w] float32, not scaled, of uint8 pictures [n, H, W, 3]."""
    latents = []
    for start in range(0, len(pixels), 32):
        part = as_input(pixels[start : start + 32])
        with half_precision(vae.device):
            latents.append(vae.encode(part.to(vae.device)).latent_dist.mean.float().cpu())
    return torch.cat(latents)
