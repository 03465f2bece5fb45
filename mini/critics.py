"""Two small networks that see what the probes do not: how far apart two pictures look, and whether
two views show the same person.

Both are trained on the world's truth by `python -m mini.train_critics`. What the verifier gets
wrong on people it never saw stands in the record beside its weights.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from engines.bundle.records import read
from mini.probes import PERSON_SIZE, SETTING_CHOICES, Pixels, as_input, halving, person_views
from mini.world import ATTRIBUTES, SIDE_PX

PERCEPTION_FILE = Path(__file__).resolve().parent / "perception.safetensors"
VERIFIER_FILE = Path(__file__).resolve().parent / "verifier.safetensors"
RECORD_FILE = Path(__file__).resolve().parent / "critics.json"
EMBEDDING_WIDTH = 64
# Of a photo's side: about what a person's view shows of a picture with one person.
_PHOTO_BOX = (0.125, 0.0, 0.875, 0.9375)
_BATCH = 32
_NARROW = 24

Values = npt.NDArray[np.float64]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class EqualError:
    """How often a verifier errs where it refuses as many as it wrongly accepts.

    rate_95: the ends of its 95 % interval over people. threshold: the similarity from which on two
    views count as one person's. people: whom training never saw. pairs: of one photo and one
    picture of two people of one kind (man, woman, boy, girl), which a caption does not tell apart.
    """

    rate: float
    rate_95: tuple[float, float]
    threshold: float
    people: int
    pairs: int


@dataclass(frozen=True, kw_only=True)
class CriticsRecord:
    """What was measured of the weights that ship.

    through_vae: of pictures that the autoencoder gave back, as the model's are; world: of the
    world's own. any_kind: through_vae, but with impostors of every kind.
    """

    machine: str
    seconds: dict[str, int]
    steps: dict[str, int]
    pictures: int
    through_vae: EqualError
    world: EqualError
    any_kind: EqualError


class Perception(nn.Module):
    """Says what a whole picture shows; what its layers see is what pictures are compared by."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 96)
        self.layers = nn.ModuleList(
            nn.Sequential(*halving(before, width)) for before, width in itertools.pairwise(widths)
        )
        self.narrow = nn.Conv2d(widths[-1], _NARROW, 1)
        self.summary = nn.Linear(_NARROW * (SIDE_PX // 16) ** 2, EMBEDDING_WIDTH)
        choices = dict(SETTING_CHOICES)
        for place in ("first", "second"):
            choices |= {f"{place}_{name}": len(values) for name, values in ATTRIBUTES.items()}
        self.heads = nn.ModuleDict(
            {name: nn.Linear(EMBEDDING_WIDTH, count) for name, count in choices.items()}
        )

    def seen(self, pixels: Tensor) -> list[Tensor]:
        """[n, 3, h, w] in [-1, 1] -> what each layer sees [n, width, rows, columns]."""
        found = []
        for layer in self.layers:
            pixels = layer(pixels)
            found.append(pixels)
        return found

    def summarized(self, last: Tensor) -> Tensor:
        """What the last layer sees [n, 96, 8, 8] -> [n, 64]."""
        found: Tensor = self.summary(functional.relu(self.narrow(last)).flatten(1))
        return found

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """[n, 3, 128, 128] in [-1, 1] -> per question [n, choices]."""
        summary = functional.relu(self.summarized(self.seen(pixels)[-1]))
        return {name: head(summary) for name, head in self.heads.items()}


class Verifier(nn.Module):
    """Gives views of one person embeddings that point the same way."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96)
        layers = [each for pair in itertools.pairwise(widths) for each in halving(*pair)]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1))
        flat = widths[-1] * (PERSON_SIZE[0] // 16) * (PERSON_SIZE[1] // 16)
        self.embedding = nn.Linear(flat, EMBEDDING_WIDTH)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(EMBEDDING_WIDTH, len(values)) for name, values in ATTRIBUTES.items()}
        )
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, views: Tensor) -> Tensor:
        """[n, 3, 80, 64] in [-1, 1] -> [n, 64], not of unit length."""
        found: Tensor = self.embedding(self.features(views))
        return found

    def named(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Per attribute [n, choices], which training alone asks for."""
        return {name: head(embeddings) for name, head in self.heads.items()}


def open_perception(path: Path = PERCEPTION_FILE) -> Perception:
    """The trained network. Raises FileNotFoundError."""
    return _opened(Perception(), path)


def open_verifier(path: Path = VERIFIER_FILE) -> Verifier:
    """The trained network. Raises FileNotFoundError."""
    return _opened(Verifier(), path)


def critics_record(path: Path = RECORD_FILE) -> CriticsRecord:
    """What was measured of the weights. Raises FileNotFoundError and RecordError."""
    return read(CriticsRecord, json.loads(path.read_text("utf-8")))


def photo_view(photo: Pixels) -> Pixels:
    """A reference photo's person as a picture's are seen, [80, 64, 3] uint8."""
    image = Image.fromarray(photo)
    left, top, right, bottom = (share * photo.shape[0] for share in _PHOTO_BOX)
    box = (left, top, right, bottom)
    return np.asarray(image.resize(PERSON_SIZE, Image.Resampling.BILINEAR, box=box))


@torch.no_grad()
def embeddings(verifier: Verifier, views: list[Pixels]) -> Values:
    """Of views [80, 64, 3] uint8: [n, 64] of unit length."""
    parts = [
        functional.normalize(verifier(as_input(np.stack(views[start : start + _BATCH]))))
        for start in range(0, len(views), _BATCH)
    ]
    return torch.cat(parts).double().numpy()


def likenesses(verifier: Verifier, picture: Pixels, photos: list[Values]) -> Values:
    """How like each photo's embedding the person in their place is, from -1 to 1 [people]."""
    found = embeddings(verifier, person_views(picture, len(photos)))
    likeness: Values = (found * np.stack(photos)).sum(axis=1)
    return likeness


@torch.no_grad()
def perceptual_distances(network: Perception, first: Pixels, second: Pixels) -> Values:
    """How far apart pictures [n, h, w, 3] uint8 look, one by one [n].

    As LPIPS (Zhang et al. 2018) without its weights: squared differences of what each layer sees,
    brought to unit length at each place, in the mean over places and layers.
    """
    found = []
    for start in range(0, len(first), _BATCH):
        pair = (first[start : start + _BATCH], second[start : start + _BATCH])
        ours, theirs = (network.seen(as_input(each)) for each in pair)
        layers = [
            (functional.normalize(a, dim=1) - functional.normalize(b, dim=1))
            .square().sum(dim=1).mean(dim=(1, 2))
            for a, b in zip(ours, theirs, strict=True)
        ]  # fmt: skip
        found.append(torch.stack(layers).mean(dim=0))
    return torch.cat(found).double().numpy()


@torch.no_grad()
def summaries(network: Perception, pictures: Pixels) -> Values:
    """What pictures [n, h, w, 3] uint8 show, as [n, 64]: what a Fréchet distance is taken of."""
    parts = [
        network.summarized(network.seen(as_input(pictures[start : start + _BATCH]))[-1])
        for start in range(0, len(pictures), _BATCH)
    ]
    return torch.cat(parts).double().numpy()


def _opened(network: Network, path: Path) -> Network:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; train it with: python -m mini.train_critics")
    network.load_state_dict({name: each.float() for name, each in load_file(path).items()})
    return network.eval().requires_grad_(requires_grad=False)
