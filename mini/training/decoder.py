"""The decoder's second training: sharp edges, from latents that stay as they are.

An L1 loss alone is smallest at the median of all pictures that a latent may stand for, which is
soft. Here a second network learns to tell crops of the world from decoded ones, and the decoder is
trained against it (Isola et al. 2017, a classifier of patches with the hinge loss) and toward what
its layers see in the real crop (Wang et al. 2018, feature matching). The encoder is not trained, so
the latents of the U-Nets keep their meaning.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from engines.contract import LATENT_PX
from mini.dataset import Shard
from mini.probes import as_input
from mini.training.loop import Plan, half_precision, step_generator
from mini.training.vae import distance

_ADVERSARIAL_WEIGHT = 0.05
_FEATURES_WEIGHT = 0.3
_RAMP_STEPS = 300
# Of the latents' deviation: what a U-Net makes is never exactly what the encoder would.
_NOISE_SHARE = 0.03
_WIDTHS = (3, 32, 64, 96)


class PatchJudge(nn.Module):
    """Says of each patch of a picture whether it was decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(before, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)
            )
            for before, width in itertools.pairwise(_WIDTHS)
        )
        self.head = nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[n, 3, h, w] in [-1, 1] -> [n, 1, h/8, w/8], above 0 for real ones, and each layer's
        features."""
        features = []
        for layer in self.layers:
            pixels = layer(pixels)
            features.append(pixels)
        return self.head(pixels), features


class Sharpened(nn.Module):
    """The VAE's decoder and the network that it is trained against."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder
        self.judge = PatchJudge()

    def forward(self, latents: Tensor) -> Tensor:
        """[n, 4, h, w], not scaled -> [n, 3, 8h, 8w], about in [-1, 1]."""
        drawn: Tensor = self.decoder(self.post_quant_conv(latents))
        return drawn


def decoder_loss(
    model: Sharpened, latents: Tensor, shard: Shard, plan: Plan, step: int, crop_px: int
) -> tuple[Tensor, dict[str, float]]:
    """One batch's loss of both networks; neither gets gradients from the other's.

    latents [pictures, 4, 16, 16]: the shard's pictures encoded, not scaled.
    """
    chance, device = step_generator(plan.name, step), next(model.parameters()).device
    cells, pixels = _crops(latents, shard, plan.batch, crop_px, chance)
    noise = torch.from_numpy(chance.standard_normal(cells.shape)).float()
    cells = cells + noise * _NOISE_SHARE * latents.std()
    real = pixels.to(device)
    with half_precision(device):
        drawn = model(cells.to(device)).float()
    fixed = {name: each.detach() for name, each in model.judge.named_parameters()}
    said, seen = functional_call(model.judge, fixed, drawn)
    with torch.no_grad():
        _, wanted = model.judge(real)
    matching = sum(
        ((a - b).abs().mean() / (b.abs().mean() + 1e-3) for a, b in zip(seen, wanted, strict=True)),
        start=torch.zeros((), device=device),
    )
    ramp = min(1.0, step / _RAMP_STEPS)
    against = -_ADVERSARIAL_WEIGHT * said.mean() + _FEATURES_WEIGHT * matching
    of_real, of_drawn = model.judge(real)[0], model.judge(drawn.detach())[0]
    judging = functional.relu(1 - of_real).mean() + functional.relu(1 + of_drawn).mean()
    shown = {
        "l1": float((drawn - real).detach().abs().mean()),
        "judge": float(judging.detach()),
        "sharpness": sharpness(drawn.detach(), real),
    }
    return distance(drawn, real) + ramp * against + judging, shown


def sharpness(drawn: Tensor, real: Tensor) -> float:
    """The energy of the Laplacian of pictures [n, 3, h, w], as a share of the real ones'."""
    rows = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]
    kernels = torch.tensor(rows, device=real.device).expand(3, 1, 3, 3)
    energies = [
        functional.conv2d(each, kernels, groups=3).square().mean() for each in (drawn, real)
    ]
    return float(energies[0] / energies[1])


def _crops(
    latents: Tensor, shard: Shard, batch: int, side: int, chance: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """Latents [batch, 4, side/8, side/8] and pixels [batch, 3, side, side] in [-1, 1] of the same
    places; every second one is around people's heads."""
    cells = side // LATENT_PX
    free = latents.shape[-1] - cells
    parts, pixels = [], np.empty((batch, side, side, 3), np.uint8)
    for index, picture in enumerate(chance.randint(0, len(latents), batch)):
        top = chance.randint(0, 1 + (free // 2 if index % 2 else free))
        left = chance.randint(0, 1 + free)
        parts.append(latents[picture, :, top : top + cells, left : left + cells])
        y, x = LATENT_PX * top, LATENT_PX * left
        pixels[index] = shard.pixels[picture, y : y + side, x : x + side]
    return torch.stack(parts), as_input(pixels)
