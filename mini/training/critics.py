"""The critics' training: pictures of the world, half of them through the VAE, with the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mini.critics import Perception, Verifier, photo_view
from mini.dataset import Shard
from mini.probes import Pixels, as_input, person_views
from mini.training.loop import Plan, step_generator
from mini.world import ATTRIBUTES

_ATTRIBUTES_WEIGHT = 0.5
# Less than what the critics are to notice.
_NOISE_SHARE = 0.03
_SHIFT_PX = 2


def perception_loss(
    model: Perception, shard: Shard, drawn: Pixels, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of every question: the setting's, and each person's attributes.

    drawn: the first of the shard's pictures as the VAE gives them back; half are of them.
    """
    chance = step_generator(plan.name, step)
    index, pixels = _pictures(shard, drawn, plan.batch, chance)
    told = model(_disturbed(as_input(pixels), chance))
    people = (shard.attributes[index, :, 0] >= 0).sum(axis=1)
    scene, _, pose, style = torch.from_numpy(shard.settings[index]).long().T
    truth = {"scene": scene, "pose": pose, "style": style, "people": torch.from_numpy(people) - 1}
    for number, place in enumerate(("first", "second")):
        labels = torch.from_numpy(shard.attributes[index, number]).long()
        truth |= {f"{place}_{name}": labels[:, i] for i, name in enumerate(ATTRIBUTES)}
    losses = [
        functional.cross_entropy(told[name], wanted, ignore_index=-1)
        for name, wanted in truth.items()
    ]
    right = (told["scene"].argmax(1) == scene).float().mean()
    hats = (told["first_hat"].argmax(1) == truth["first_hat"]).float().mean()
    return torch.stack(losses).mean(), {"scene": float(right), "hat": float(hats)}


def verifier_loss(
    model: Verifier, shard: Shard, drawn: Pixels, plan: Plan, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Which of the batch's photos is of the person in a picture, and of which photo the picture.

    Radford et al. 2021's loss between photos and pictures; beside it, both name the attributes.
    """
    chance = step_generator(plan.name, step)
    index, pixels = _pictures(shard, drawn, plan.batch, chance)
    views, photos, labels = [], [], []
    for picture, shown in zip(index, pixels, strict=True):
        people = len(shard.kinds(picture))
        place = chance.randint(0, people)
        views.append(person_views(shown, people)[place])
        photos.append(photo_view(np.asarray(shard.photos[picture, place])))
        labels.append(shard.attributes[picture, place])
    both = torch.cat([as_input(np.stack(views)), as_input(np.stack(photos))])
    found = model(_disturbed(both, chance))
    unit = functional.normalize(found)
    scores = unit[: plan.batch] @ unit[plan.batch :].T * model.log_scale.clamp(max=4.0).exp()
    own = torch.arange(plan.batch)
    apart = (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2
    truth = torch.from_numpy(np.stack(labels * 2)).long()
    named = model.named(found)
    losses = [functional.cross_entropy(named[n], truth[:, i]) for i, n in enumerate(ATTRIBUTES)]
    right = (scores.argmax(1) == own).float().mean()
    return apart + _ATTRIBUTES_WEIGHT * torch.stack(losses).mean(), {"right": float(right)}


def _pictures(
    shard: Shard, drawn: Pixels, count: int, chance: np.random.RandomState
) -> tuple[npt.NDArray[np.int64], Pixels]:
    """Numbers of pictures, and these: every second one as the VAE gives it back."""
    index = chance.randint(0, len(shard.pixels), count)
    index[1::2] %= len(drawn)
    pixels = [(drawn if i % 2 else shard.pixels)[n] for i, n in enumerate(index)]
    return index, np.stack(pixels)


def _disturbed(pixels: Tensor, chance: np.random.RandomState) -> Tensor:
    """A little noise and a shift."""
    noise = torch.from_numpy(chance.standard_normal(pixels.shape)).float()
    pixels = pixels + noise * float(chance.uniform(0, _NOISE_SHARE))
    rows, columns = chance.randint(-_SHIFT_PX, _SHIFT_PX + 1, 2)
    return torch.roll(pixels, (int(rows), int(columns)), dims=(2, 3))
