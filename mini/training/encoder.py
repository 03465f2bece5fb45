"""The image encoder's pretraining: it names every attribute of a photo's person.

The analogue of CLIP's own training, which the paper's system starts from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.checkpoint.model_facts import CLIP_MEAN, CLIP_STD
from mini.dataset import Shard
from mini.training.loop import Plan, half_precision, step_generator
from mini.world import ATTRIBUTES


class AttributeEncoder(nn.Module):
    """The image encoder with one linear classifier per attribute on its embedding."""

    def __init__(self, image_encoder: Any) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        width = image_encoder.config.projection_dim
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in ATTRIBUTES.values())

    def forward(self, photos: Tensor) -> list[Tensor]:
        """[n, 3, side, side] normalized -> per attribute [n, values]."""
        embeds = self.image_encoder(pixel_values=photos).image_embeds
        return [head(embeds) for head in self.heads]


def encoder_loss(
    model: AttributeEncoder, photos: Tensor, attributes: Tensor, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Mean cross-entropy over the attributes; photos [n, side, side, 3] uint8."""
    chance = step_generator(plan.name, step)
    index = torch.from_numpy(chance.randint(0, len(photos), plan.batch))
    device = model.image_encoder.device
    with half_precision(device):
        answers = model(normalized(photos[index]).to(device))
    truth = attributes[index].long().to(device)
    losses = [
        functional.cross_entropy(answer.float(), truth[:, place], label_smoothing=0.02)
        for place, answer in enumerate(answers)
    ]
    right = [(a.argmax(1) == truth[:, i]).float().mean() for i, a in enumerate(answers)]
    return torch.stack(losses).mean(), {"accuracy": float(torch.stack(right).mean())}


def all_photos(shard: Shard) -> tuple[Tensor, Tensor]:
    """Photos [n, side, side, 3] uint8 and attributes [n, attributes] of everybody there is."""
    there = shard.attributes[..., 0] >= 0
    return torch.from_numpy(shard.photos[there]), torch.from_numpy(shard.attributes[there])


def normalized(photos: Tensor | npt.NDArray[np.uint8]) -> Tensor:
    """[..., side, side, 3] uint8 -> [..., 3, side, side] float32 with CLIP's mean and deviation."""
    pixels = torch.as_tensor(photos).float() / 255
    return ((pixels - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).movedim(-1, -3)
