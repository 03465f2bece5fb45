"""FastComposer's training (Xiao et al. 2023): the paper's strongest baseline, on the drawn world.

One U-Net learns to draw with and without people. It starts from TDM's weights and is trained as SDM
is, on the same pictures, in as many steps. What differs: a loss keeps each person's word to where
that person is in the picture, and the empty prompt, from which its guidance points, is as frequent
as in TDM's training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mini.dataset import MAX_PEOPLE
from mini.training.diffusion import NULL_SHARE, Latents, SubjectAugmented, subject_step
from mini.training.loop import Plan

# Of the localization beside the noise's error: section 4.2 of the paper.
LOCALIZATION_WEIGHT = 1e-3


def fastcomposer_loss(
    model: SubjectAugmented, text_encoder: Any, data: Latents, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """SDM's error of the noise, and how far attention to a person's word lies outside of them."""
    with cross_attention(model.unet) as maps:
        found = subject_step(model, text_encoder, data, plan, step, null_share=NULL_SHARE)
    batch = found.batch
    rows, places, tokens = [], [], []
    for row, positions in enumerate(batch.positions):
        if not found.text_only[row]:
            for place, position in enumerate(positions[:MAX_PEOPLE]):
                rows.append(row)
                places.append(place)
                tokens.append(position)
    if not rows:
        return found.loss, {"plain": found.plain, "outside": 0.0}
    regions = torch.from_numpy(data.shard.regions[batch.index]).float().to(found.loss.device) / 255
    people = torch.tensor([len(positions) for positions in batch.positions])
    own = own_regions(regions[rows], torch.tensor(places), people[rows])
    outside = localization([_of_words(each, len(regions), rows, tokens) for each in maps], own)
    shown = {"plain": found.plain, "outside": float(outside.detach())}
    return found.loss + LOCALIZATION_WEIGHT * outside, shown


@contextmanager
def cross_attention(unet: nn.Module) -> Iterator[list[Tensor]]:
    """What each cross-attention looks at, filled as it runs: [n * heads, places, tokens] each."""
    maps: list[Tensor] = []

    def kept(scores: Any, *inputs: Any) -> Tensor:
        found: Tensor = scores(*inputs)
        maps.append(found)
        return found

    layers: list[Any] = [each for name, each in unet.named_modules() if name.endswith("attn2")]
    for layer in layers:
        layer.get_attention_scores = partial(kept, layer.get_attention_scores)
    try:
        yield maps
    finally:
        for layer in layers:
            del layer.get_attention_scores


def own_regions(regions: Tensor, places: Tensor, people: Tensor) -> Tensor:
    """Each person's part of a picture's people [persons, side, side].

    regions: of everybody in the person's picture. Of two people each has their half of the picture,
    from left to right, which is where the world puts them.
    """
    half = torch.zeros_like(regions)
    middle = regions.shape[-1] // 2
    half[places == 0, :, :middle] = 1
    half[places == 1, :, middle:] = 1
    two = (people == 2)[:, None, None].to(regions.device)
    return torch.where(two, regions * half, regions)


def localization(attention: list[Tensor], regions: Tensor) -> Tensor:
    """Mean attention outside of a person less that inside, over persons and layers.

    attention: of each layer [persons, side, side], of the word of a person. regions: theirs
    [persons, side, side].
    """
    losses = []
    for looked in attention:
        inside = functional.adaptive_avg_pool2d(regions, (looked.shape[-2], looked.shape[-1]))
        outside = 1 - inside
        losses.append(_mean_where(looked, outside) - _mean_where(looked, inside))
    return torch.stack(losses).mean()


def _mean_where(attention: Tensor, where: Tensor) -> Tensor:
    weighed = (attention * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp(min=1e-5)
    return weighed.mean()


def _of_words(attention: Tensor, images: int, rows: list[int], tokens: list[int]) -> Tensor:
    """[n * heads, places, tokens] -> of these samples and tokens [persons, side, side]."""
    side = round(attention.shape[1] ** 0.5)
    by_image = attention.float().view(images, -1, side, side, attention.shape[-1]).mean(dim=1)
    return by_image[rows, :, :, tokens]
