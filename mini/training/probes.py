"""The probes' training: pictures of the world, half of them through the VAE, with the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mini.dataset import Shard
from mini.probes import (
    Pixels,
    Probe,
    as_input,
    person_probe,
    person_views,
    setting_probe,
    setting_view,
)
from mini.training.loop import Plan, step_generator
from mini.world import ATTRIBUTES


class Probes(nn.Module):
    """Both probes, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.person: Probe = person_probe()
        self.setting: Probe = setting_probe()


def probes_loss(
    model: Probes, shard: Shard, drawn: Pixels, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of every question on one batch of pictures.

    drawn: the first of the shard's pictures as the VAE gives them back; half are of them.
    """
    chance = step_generator(plan.name, step)
    index = chance.randint(0, len(shard.pixels), plan.batch)
    index[::2] %= len(drawn)
    pictures = [(drawn if i % 2 == 0 else shard.pixels)[n] for i, n in enumerate(index)]
    views, attributes, settings = [], [], []
    for picture, pixels in zip(index, pictures, strict=True):
        people = len(shard.kinds(picture))
        views += person_views(pixels, people)
        attributes += list(shard.attributes[picture, :people])
        scene, _, pose, style = shard.settings[picture]
        settings.append((scene, pose, people - 1, style))
    device = next(model.parameters()).device
    person = model.person(_disturbed(as_input(np.stack(views)), chance).to(device))
    whole = np.stack([setting_view(pixels) for pixels in pictures])
    setting = model.setting(_disturbed(as_input(whole), chance).to(device))
    truth = torch.from_numpy(np.stack(attributes)).long().to(device)
    losses = [functional.cross_entropy(person[n], truth[:, i]) for i, n in enumerate(ATTRIBUTES)]
    targets = torch.tensor(np.array(settings)).long().to(device)
    losses += [functional.cross_entropy(v, targets[:, i]) for i, v in enumerate(setting.values())]
    right = [(person[n].argmax(1) == truth[:, i]).float().mean() for i, n in enumerate(ATTRIBUTES)]
    return torch.stack(losses).mean(), {"identity": float(torch.stack(right).mean())}


def _disturbed(pixels: Tensor, chance: np.random.RandomState) -> Tensor:
    """A little noise, blur and shift, so that small faults of a drawn picture do not matter."""
    noise = torch.from_numpy(chance.standard_normal(pixels.shape)).float()
    pixels = pixels + noise * float(chance.uniform(0, 0.12))
    if chance.random_sample() < 0.5:
        pixels = functional.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    shifts = tuple(int(shift) for shift in chance.randint(-2, 3, 2))
    return torch.roll(pixels, shifts, dims=(2, 3))


def through_vae(vae: Any, pixels: Pixels) -> Pixels:
    """Pictures encoded and decoded, [n, h, w, 3] uint8."""
    drawn = []
    with torch.no_grad():
        for start in range(0, len(pixels), 32):
            latents = vae.encode(as_input(pixels[start : start + 32])).latent_dist.mean
            decoded = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
            drawn.append((decoded * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(drawn)
